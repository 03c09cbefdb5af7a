"""How a training runs, independent of what it learns."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from ccsd.config.section import Section


class Runtime(Section):
    """How a training runs: speed, memory, checkpoints, logging. Nothing here changes what is learnt."""

    zero_stage: Literal[0, 1, 2, 3] = Field(
        1,
        description="what DeepSpeed shards over processes: 0 nothing, 1 optimizer state, 2 also gradients, "
        "3 also weights",
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        "none",
        description="what is kept in the host's memory instead of the GPU's: optimizer state (zero_stage 1 to 3), or "
        "weights too (3)",
    )
    micro_batch: PositiveInt | None = Field(
        None,
        description="samples that a process computes at once; fewer take less memory and more time; unset: all",
    )
    decode_batch: PositiveInt = Field(
        8, description="subsets decoded together; fewer than a step visits take less memory and more time"
    )
    activation_checkpointing: bool = Field(
        False, description="recompute the encoders' activations in the backward pass: less memory, more time"
    )
    compile: bool = Field(
        False, description="torch.compile for networks and losses; the first step takes minutes; not with zero_stage 3"
    )
    cuda_graphs: bool = Field(
        True,
        description="on a GPU, record each kind of step as CUDA graphs and replay them, because launching its "
        "operations one by one takes longer than computing them; not used with compile, deterministic, zero_stage 3 "
        "and plugins",
    )
    deterministic: bool = Field(
        False,
        description="use only operations that give the same bits every time, also on a GPU (not with shaspec); slower",
    )
    profile: PositiveInt | None = Field(
        None,
        description="steps to trace with torch.profiler, beginning with the sixth step after a start; written to "
        "RUN/trace.json.gz",
    )
    workers: int = Field(2, ge=0, description="processes per rank that read patches")
    checkpoint_every: PositiveInt = Field(1000, description="steps between checkpoints")
    keep_last: PositiveInt = Field(2, description="checkpoints kept beside the best one")
    sinks: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        ("tensorboard",), description="loggers for curves and pictures, in addition to metrics.jsonl"
    )

    @model_validator(mode="after")
    def _offloads_what_is_sharded(self) -> Self:
        needed = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < needed:
            raise ValueError(
                f"runtime.offload {self.offload} needs runtime.zero_stage {'3' if needed == 3 else '1, 2 or 3'}, "  # noqa: PLR2004
                f"not {self.zero_stage}"
            )
        return self

    @model_validator(mode="after")
    def _compiles_what_is_whole(self) -> Self:
        if self.compile and self.zero_stage == 3:  # noqa: PLR2004 - the stage that shards weights
            raise ValueError(
                "runtime.compile does not work with runtime.zero_stage 3, which gathers weights module by module"
            )
        return self

"""Which elements of which parameters this process holds the optimizer's state of, under every ZeRO stage.

Stage 0 keeps everything everywhere. Stages 1 and 2 lay the parameters end to end and cut them into one flat tensor per
process; stage 3 cuts every parameter by itself. Here all of them look the same: a run of elements of a named parameter
that lies at an offset of a flat tensor. Reading it needs no communication.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state of each element."""


@dataclass(frozen=True)
class Shard:
    """A run of elements of one parameter, held by this process."""

    name: str
    start: int
    """First element of the flattened parameter."""
    numel: int
    flat: Tensor
    """The float32 tensor that the optimizer updates; its state is filed under it."""
    offset: int
    """Where the run begins in `flat`."""

    def of(self, values: Tensor) -> Tensor:
        """Return the run within a tensor shaped like `flat`, as a view."""
        return values.detach().view(-1).narrow(0, self.offset, self.numel)


def owned(engine: Any) -> list[Shard]:
    """Return what this process owns; over all processes of stages 1 to 3 that is every element once."""
    by_stage = {0: _replicated, 1: _cut_end_to_end, 2: _cut_end_to_end, 3: _cut_one_by_one}
    named = [(name, p) for name, p in engine.module.named_parameters() if p.requires_grad]
    return [shard for shard in by_stage[engine.zero_optimization_stage()](engine, named) if shard.numel > 0]


def torch_optimizer(engine: Any) -> torch.optim.Optimizer:
    """Return the optimizer that was handed to DeepSpeed, which wraps it when it shards."""
    optimizer = engine.optimizer
    inner: torch.optim.Optimizer = optimizer.optimizer if engine.zero_optimization_stage() else optimizer
    return inner


def state_of(engine: Any, shard: Shard) -> dict[str, Tensor]:
    """Return the optimizer's state tensors that the shard lies in; made, with zeros, where no step was taken yet."""
    state: dict[str, Tensor] = torch_optimizer(engine).state[shard.flat]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32)
        state |= {key: torch.zeros_like(shard.flat) for key in MOMENTS}
    return state


def optimizer_bytes(engine: Any) -> int:
    """Return how many bytes of optimizer state (the moments) this process holds."""
    states = torch_optimizer(engine).state.values()
    return sum(state[key].numel() * state[key].element_size() for state in states for key in MOMENTS if key in state)


def parameter_bytes(engine: Any) -> int:
    """Return how many bytes of the network's weights this process holds between steps."""
    parameters = engine.module.parameters()
    held = (getattr(p, "ds_tensor", p) if p.numel() == 0 else p for p in parameters)
    return sum(p.numel() * p.element_size() for p in held)


def _replicated(_engine: Any, named: list[tuple[str, Any]]) -> Iterator[Shard]:
    for name, parameter in named:
        yield Shard(name, 0, parameter.numel(), parameter, 0)


def _cut_end_to_end(engine: Any, named: list[tuple[str, Any]]) -> Iterator[Shard]:
    flats = engine.optimizer.single_partition_of_fp32_groups
    for name, parameter in named:
        here = parameter._hp_mapping  # noqa: SLF001 - DeepSpeed's map from parameters to its flat tensors
        if here is not None:
            there = here.hp_fragment_address
            yield Shard(name, here.lp_fragment_address.start, there.numel, flats[here.param_group_index], there.start)


def _cut_one_by_one(engine: Any, named: list[tuple[str, Any]]) -> Iterator[Shard]:
    optimizer = engine.optimizer
    for name, parameter in named:
        group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
        start = size * optimizer._get_param_partition_rank(parameter)  # noqa: SLF001 - as DeepSpeed's own accessors do
        # The last process's part is padded to the size of the others.
        yield Shard(name, start, min(size, parameter.ds_numel - start), _flat(optimizer, group), offset)


def _flat(optimizer: Any, group: int) -> Tensor:
    flat: Tensor = optimizer.fp32_partitioned_groups_flat[group]
    return flat

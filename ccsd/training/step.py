"""One optimizer step of the global batch, however it is split into processes and micro-batches.

Every sample's gradient has the same weight, so the split changes only the rounding of sums. All processes compute the
same number of micro-batches, because with sharding they wait for one another in each. A process that has none of its
own left computes a copy of a sample, with a weight of 0.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ccsd.config.runtime import Runtime
from ccsd.config.schema import Config
from ccsd.data import Batch
from ccsd.data.sampling import samples_of
from ccsd.distillation.objective import Objective
from ccsd.distillation.own import PluginObjective
from ccsd.model.net import SharedSpecificNet
from ccsd.training.average import update_average
from ccsd.training.distributed import Process
from ccsd.training.engine import STAGE_OF_WEIGHTS, micro_batches, set_learning_rate
from ccsd.training.feeder import Feeder, SideStream, prepared
from ccsd.training.graphs import CudaTape, record_steps
from ccsd.training.log import StepMeans
from ccsd.training.timing import PartTimes


@dataclass(frozen=True)
class Part:
    """A micro-batch: consecutive samples of a process's batch."""

    rows: slice
    weight: float
    """Weight of its mean loss in the mean over processes; 1 for one micro-batch in equal shares, 0 for a copy."""


def parts_of(rank: int, world: int, batch_size: int, micro_batch: int | None) -> list[Part]:
    """Return the micro-batches of a process."""
    own = len(samples_of(rank, world, batch_size))
    count, size = micro_batches(batch_size, world, micro_batch)
    rows = [slice(first, min(first + size, own)) for first in range(0, own, size)]
    parts = [Part(part, (part.stop - part.start) * world / batch_size) for part in rows]
    return parts + [Part(slice(0, 1), 0.0)] * (count - len(parts))


class LossScale:
    """The factor that keeps float16 gradients from vanishing: halved when they overflow, doubled after 2000 steps."""

    FIRST = 2.0**16
    GROWS_AFTER = 2000

    def __init__(self, precision: str, value: float | None, good_steps: int = 0) -> None:
        self.enabled = precision == "fp16"
        self.value = (value or self.FIRST) if self.enabled else 1.0
        self.good_steps = good_steps

    @property
    def state(self) -> tuple[float | None, int]:
        """What a checkpoint keeps: the value (None without a scale), and the steps since it last changed."""
        return (self.value if self.enabled else None), self.good_steps

    def update(self, *, good: bool) -> bool:
        """Adapt the scale after a step; return False for a failed step that no smaller scale can fix."""
        fixed = good or self.value > 1
        if not good:
            self.value, self.good_steps = max(1.0, self.value / 2), 0
        elif self.enabled:
            self.good_steps += 1
            if self.good_steps == self.GROWS_AFTER:
                self.value, self.good_steps = self.value * 2, 0
        return fixed


@dataclass(frozen=True)
class Outcome:
    """The outcome of a step."""

    norm: float
    """Norm of the gradient, before clipping."""
    losses: list[Tensor]
    """Losses of the micro-batches."""
    batch: Batch
    """The batch it was computed from; its tensors are no longer valid."""


def _is_recorded(objective: Objective | PluginObjective, runtime: Runtime) -> bool:
    """Return whether steps are recorded.

    Not if weights move in memory, nor steps of others, which may wait for the device, nor deterministic ones, because
    some of torch's deterministic operations wait.
    """
    ours = type(objective) is Objective and isinstance(objective.net, SharedSpecificNet)
    still = runtime.zero_stage != STAGE_OF_WEIGHTS and not (runtime.compile or runtime.deterministic)
    return runtime.cuda_graphs and ours and still


class Stepper:
    """Takes optimizer steps. Every method is called by every process."""

    def __init__(
        self,
        engine: Any,
        config: Config,
        process: Process,
        scale: LossScale,
        batches: Iterator[Batch],
        times: PartTimes,
    ) -> None:
        self.engine, self.config, self.process, self.scale, self.times = engine, config, process, scale, times
        train = config.train
        self.parts = parts_of(process.rank, process.world, train.batch_size, config.runtime.micro_batch)
        if process.device.type == "cuda" and _is_recorded(engine.module, config.runtime):
            sizes = (len(range(train.batch_size)[part.rows]) for part in self.parts)
            record_steps(engine.module, config, sizes, CudaTape(process.device))
        self.feeder = Feeder(
            batches,
            partial(prepared, config=config, device=process.device, times=times),
            [part.rows for part in self.parts],
            SideStream(process.device) if process.device.type == "cuda" else None,
            times,
        )

    def take(self, step: int, means: StepMeans) -> Outcome:
        """Take one step.

        If the norm is not finite, nothing was updated: weights, moments and criticalities are as before.
        """
        set_learning_rate(self.engine, step, self.config.train)
        losses: list[Tensor] = []
        scored: list[Tensor] = []
        for part in self.parts:
            if losses:
                self.engine.step()  # for the micro-batch before: only counts
            ready = self.feeder.take()
            with self.times.part("forward"):
                outputs = self.engine(ready.image, ready.label, ready.available, ready.draw)
            self.feeder.ahead()  # before the backward pass, in which DeepSpeed may wait for the device
            with self.times.part("backward"):
                self._backward(outputs["loss"], part.weight)
            losses.append(outputs["loss"].detach())
            means.add(outputs, part.weight)
            if "scored" in outputs:
                scored.append(outputs["scored"] * (part.weight > 0))
        with self.times.part("update"):
            norm = self._update()
        if self.config.train.ema and math.isfinite(norm):
            update_average(self.engine, step)
        if scored and math.isfinite(norm):
            self.engine.module.learn_criticality(self.process.sum(torch.stack(scored).sum(0)))
        return Outcome(norm, losses, ready.batch)

    def _backward(self, loss: Tensor, weight: float) -> None:
        """Add the gradient of a micro-batch. Stages with sharding do the scaling and unscaling themselves."""
        if self._is_sharded:
            self.engine.optimizer.loss_scale = self.scale.value
        else:
            weight *= self.scale.value
        self.engine.backward(loss * weight, scale_wrt_gas=False)

    def _update(self) -> float:
        if self._is_sharded:
            self.engine.step()  # skips the update if the gradient is not finite
            return float(self.engine.get_global_grad_norm())
        parameters = list(self.engine.module.parameters())
        if self.scale.enabled:
            torch._foreach_div_([p.grad for p in parameters if p.grad is not None], self.scale.value)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.train.clip or math.inf))
        if not math.isfinite(norm):
            self.engine.zero_grad()  # without gradients, the optimizer leaves weights and moments alone
        self.engine.step()
        return norm

    @property
    def _is_sharded(self) -> bool:
        return bool(self.engine.zero_optimization_stage())

"""What a step draws and how strongly it distils: pure functions of the settings and the step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ccsd.config.method import Distillation, static_order
from ccsd.data.batch import send
from ccsd.distillation.subsets import draw_levels, every_partial
from ccsd.plugins.find import OBJECTIVE, is_plugin
from ccsd.randomness import Stream, generator
from preprocess.task import Task


@dataclass(frozen=True)
class Draw:
    """What a step's chance and schedule decide outside the network."""

    visited: Tensor
    """K x B x M bool: the partial subsets visited by chance; K is 0 for `full`."""
    priority: Tensor
    """M x B: order of removal for the criteria that need no score, higher first."""
    ramp: float
    """rho(t): the distillation's weight at this step, 0 to 1."""
    score: bool
    """Whether DMCD measures criticality in this step or uses the running means."""
    seed: int = 0
    step: int = 0
    total_steps: int = 1
    samples: tuple[int, ...] = ()
    """Numbers within the global batch."""

    def to(self, device: torch.device) -> Self:
        """Return the draw with its tensors on a device."""
        return replace(self, visited=send(self.visited, device), priority=send(self.priority, device))


def draw_step(
    settings: Distillation,
    task: Task,
    available: Tensor,
    *,
    seed: int,
    step: int,
    total_steps: int,
    samples: Sequence[int],
) -> Draw:
    """Decide what one step visits.

    Parameters
    ----------
    settings
        The distillation section of the configuration.
    task
        What the M modalities are.
    available
        B x M bool on the CPU.
    seed, step, samples
        Sample i of the global batch draws from (seed, step, i) alone; `samples` holds the B indices.
    total_steps
        Length of the training, for the ramp.
    """
    return Draw(
        visited=_visited(settings, available, seed, step, samples),
        priority=_priority(settings, task, seed, step, samples),
        ramp=ramp(step, total_steps, settings.ramp),
        score=step % settings.every_n == 0,
        seed=seed,
        step=step,
        total_steps=total_steps,
        samples=tuple(samples),
    )


def ramp(step: int, total_steps: int, share: float) -> float:
    """Return rho(t): rises linearly from 0 to 1 over the first `share` of the training."""
    return 1.0 if share == 0 else min(1.0, step / (share * total_steps))


def _visited(settings: Distillation, available: Tensor, seed: int, step: int, samples: Sequence[int]) -> Tensor:
    if settings.method == "full" or is_plugin(OBJECTIVE, settings.method):
        return available.new_zeros((0, *available.shape))
    if settings.hmsd_pairs == "all":
        return every_partial(available)
    return draw_levels(available, seed, step, samples, nested=settings.hmsd_pairs == "adjacent")


def _priority(settings: Distillation, task: Task, seed: int, step: int, samples: Sequence[int]) -> Tensor:
    names = task.modalities
    if settings.criterion == "random":
        rows = [generator(Stream.REMOVAL, seed, step, i).permutation(len(names)) for i in samples]
    else:
        order = static_order(settings, task) or names
        rows = [np.array([-order.index(m) for m in names]) for _ in samples]
    return torch.from_numpy(np.stack(rows, axis=1)).float()

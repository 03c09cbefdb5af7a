"""What a step draws and how strongly it distils: pure functions of the settings and the step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ccsd.config.method import WITH_DMCD, Distillation, static_order
from ccsd.data.batch import send
from ccsd.distillation.subsets import draw_levels, every_partial, is_partial
from ccsd.plugins.find import OBJECTIVE, is_plugin
from ccsd.randomness import Stream, generator
from preprocess.task import Task


@dataclass(frozen=True)
class Draw:
    """What random draws and the schedule decide for a step, outside the network."""

    visited: Tensor
    """K x B x M bool: the partial subsets visited at random; K is 0 for `full`."""
    priority: Tensor
    """M x B: order of removal for the criteria that need no score, higher first."""
    walks: bool
    """Whether DMCD's path is walked in this step, the same on every process."""
    walked: Tensor | None
    """B: which step of the path is distilled, 0 the first; None for all."""
    from_full: bool
    """Whether each of these begins at the full set, the same on every process."""
    share: float
    """Share of the steps that have this step's distillation: a half if two kinds take turns, else 1."""
    ramp: float | Tensor
    """rho(t): the distillation's weight at this step, 0 to 1; a recorded step needs it in the device's memory."""
    score: bool
    """Whether DMCD measures criticality in this step or uses the running means."""
    seed: int = 0
    step: int = 0
    total_steps: int = 1
    samples: tuple[int, ...] = ()
    """Numbers within the global batch."""

    def to(self, device: torch.device) -> Self:
        """Return the draw with its tensors on a device."""
        sent: dict[str, Any] = {name: send(value, device) for name, value in self.tensors().items()}
        return replace(self, **sent)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by their names."""
        found = {"visited": self.visited, "priority": self.priority, "walked": self.walked}
        return {name: value for name, value in found.items() if value is not None}


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
        Defines the M modalities.
    available
        B x M bool on the CPU.
    seed, step, samples
        Sample i of the global batch draws only from (seed, step, i); `samples` holds the B indices.
    total_steps
        Length of the training, for the ramp.
    """
    walks = settings.method in WITH_DMCD
    in_turns = walks and settings.per_step == "one"
    walks = walks and (not in_turns or step % 2 == 1)
    walked, from_full = _walked(settings, available, seed, step) if walks else (None, False)
    visited = _visited(settings, available, seed, step, samples)
    return Draw(
        visited=visited[:0] if in_turns and walks else visited,
        priority=_priority(settings, task, seed, step, samples),
        walks=walks,
        walked=walked,
        from_full=from_full,
        share=0.5 if in_turns else 1.0,
        ramp=ramp(step, total_steps, settings.ramp),
        score=walks and settings.is_scored and (step // 2 if in_turns else step) % settings.every_n == 0,
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
    if settings.hmsd_pairs == "adjacent":
        return draw_levels(available, seed, step, samples, nested=True)
    every = settings.hmsd_pairs == "all"
    sets = every_partial(available) if every else draw_levels(available, seed, step, samples)
    return sets if settings.per_step == "all" else _one_of(sets, available, seed, step, samples)


def _one_of(sets: Tensor, available: Tensor, seed: int, step: int, samples: Sequence[int]) -> Tensor:
    """Choose one of the K x B x M sets for each sample, if possible one that lacks something: 1 x B x M."""
    chosen = []
    for partial, i in zip(is_partial(sets, available).T, samples, strict=True):
        possible = partial.nonzero().flatten().tolist() or [0]
        chosen.append(int(generator(Stream.SIZES, seed, step, i).choice(possible)))
    return sets[chosen, range(len(chosen))][None] if len(sets) else sets


def _walked(settings: Distillation, available: Tensor, seed: int, step: int) -> tuple[Tensor | None, bool]:
    """Choose a step of the path: one number for all samples, as a share of the steps that each can take.

    So every process knows whether all samples of all processes begin at the full set.
    """
    steps = available.shape[1] - 1
    if settings.per_step == "all" or not steps:
        return None, False
    share = generator(Stream.PATH_STEPS, seed, step).random()
    return (share * (available.sum(1) - 1).double()).long(), share * steps < 1


def _priority(settings: Distillation, task: Task, seed: int, step: int, samples: Sequence[int]) -> Tensor:
    names = task.modalities
    if settings.criterion == "random":
        rows = [generator(Stream.REMOVAL, seed, step, i).permutation(len(names)) for i in samples]
    else:
        order = static_order(settings, task) or names
        rows = [np.array([-order.index(m) for m in names]) for _ in samples]
    return torch.from_numpy(np.stack(rows, axis=1)).float()

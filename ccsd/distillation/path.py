"""DMCD's path: from the full set down to one modality, the most critical one removed first.

Shapes: B batch, M modalities, S = M - 1 steps of the path.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ccsd.distillation.subsets import bits

Criticality = Callable[[Tensor, Tensor], Tensor]
"""From the M x B x M candidate sets and the B x M current set to M x B scores; higher is more critical."""


def remove_each(current: Tensor) -> Tensor:
    """Return the M sets that lack one modality each, M x B x M; an impossible removal leaves the set unchanged.

    A modality that is absent, or is the last one, cannot be removed.
    """
    without = current & ~torch.eye(current.shape[-1], dtype=torch.bool, device=current.device)[:, None]
    return torch.where(without.any(-1, keepdim=True), without, current)


def removable(current: Tensor) -> Tensor:
    """Return which modalities may be removed from B x M sets: M x B."""
    return (current & (current.sum(-1, keepdim=True) > 1)).T


def next_set(current: Tensor, scores: Tensor) -> Tensor:
    """Remove from each B x M set the removable modality of the highest M x B score, ties by the fixed order."""
    allowed = scores.masked_fill(~removable(current), -torch.inf)
    chosen = allowed.argmax(0)
    return remove_each(current)[chosen, torch.arange(len(chosen), device=chosen.device)]


def greedy_path(available: Tensor, criticality: Criticality) -> Tensor:
    """Return P_1, ..., P_{M-1} of each sample, S x B x M, each lacking the most critical modality of the one before.

    A sample with fewer modalities reaches its last one early and stays there.
    """
    path, current = [], available
    for _ in range(available.shape[-1] - 1):
        current = next_set(current, criticality(remove_each(current), current))
        path.append(current)
    return torch.stack(path) if path else available.new_zeros((0, *available.shape))


class RunningCriticality(torch.nn.Module):
    """Mean criticality c_m(S) of each modality in each set, seen so far; used between the steps that score.

    The means are buffers, so they are part of the checkpoint. They are updated once per step, with the scores of all
    micro-batches of all processes: every process then walks the paths that one process with the whole batch would walk.
    """

    mean: Tensor
    seen: Tensor
    MOMENTUM = 0.9

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2**modalities, modalities))
        self.register_buffer("seen", torch.zeros(2**modalities, modalities, dtype=torch.bool))

    def lookup(self, current: Tensor) -> Tensor:
        """Return the M x B mean scores for B x M sets; 0 for what was never scored."""
        return self.mean[bits(current)].T

    def update(self, totals: Tensor, counts: Tensor) -> None:
        """Blend in new scores, given as sums and counts over all samples of all processes, each 2^M x M."""
        new = totals / counts.clamp(min=1)
        blended = torch.where(self.seen, self.MOMENTUM * self.mean + (1 - self.MOMENTUM) * new, new)
        self.mean.copy_(torch.where(counts > 0, blended, self.mean))
        self.seen |= counts > 0


def tally(current: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Sum M x B scores by the set they were measured in: (2^M x M sums, 2^M x M counts)."""
    rows = bits(current)
    valid = removable(current).T
    values = torch.where(valid, scores.T, 0).float()
    count = current.shape[-1]
    empty = torch.zeros(2**count, count, device=scores.device)
    return empty.index_add(0, rows, values), empty.index_add(0, rows, valid.float())


def order_of_removal(available: Tensor, path: Tensor) -> Tensor:
    """Return the modality removed at each step, S x B int64, -1 where nothing was."""
    before = torch.cat([available[None], path[:-1]])
    gone = before & ~path
    return torch.where(gone.any(-1), gone.int().argmax(-1), -1)

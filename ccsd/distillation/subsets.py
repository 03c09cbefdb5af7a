"""Which subsets of modalities a training step visits at random: pure functions of the seed, the step and the sample.

Because a draw depends on nothing else, any number of processes together draw what one process would draw, and a resumed
run draws what an uninterrupted run would have drawn.

Shapes: K subsets, B batch, M modalities.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ccsd.randomness import Stream, generator


def bits(subset: Tensor) -> Tensor:
    """Return the integer whose bit m says whether modality m is in the subset; ... x M bool to ... int64."""
    return (subset.long() << torch.arange(subset.shape[-1], device=subset.device)).sum(-1)


def from_bits(number: int, count: int) -> list[bool]:
    """Return the subset, as `count` booleans, of an integer made by `bits`."""
    return [bool(number >> m & 1) for m in range(count)]


def draw_levels(available: Tensor, seed: int, step: int, samples: Sequence[int], *, nested: bool = False) -> Tensor:
    """Draw one subset of each size M - 1, ..., 1 from the modalities of each sample.

    Parameters
    ----------
    available
        B x M bool on the CPU.
    seed, step, samples
        The draw for sample i of the global batch depends only on (seed, step, i); `samples` holds the B indices.
    nested
        Draw a chain, each subset within the one before, instead of independent subsets.

    Returns
    -------
    Tensor
        (M - 1) x B x M bool. For a size that a sample cannot have (it has no more modalities than that), it is the
        sample's full set; `is_partial` shows which.
    """
    drawn = [
        _levels_of(row, generator(Stream.SUBSETS, seed, step, i), nested)
        for row, i in zip(available, samples, strict=True)
    ]
    count = available.shape[1]
    return torch.tensor(drawn, dtype=torch.bool).reshape(len(drawn), count - 1, count).transpose(0, 1)


def every_partial(available: Tensor) -> Tensor:
    """Return all 2^M - 2 partial subsets, largest first, x B x M; those a sample cannot have are its full set."""
    count = available.shape[1]
    numbers = sorted(range(1, 2**count - 1), key=lambda n: (-n.bit_count(), n))
    table = torch.tensor([from_bits(n, count) for n in numbers], dtype=torch.bool).reshape(-1, 1, count)
    possible = (table & ~available).sum(-1, keepdim=True) == 0
    return torch.where(possible, table, available)


def is_partial(subsets: Tensor, full: Tensor) -> Tensor:
    """Return which of K x B x M subsets lack something of the B x M full sets: K x B bool."""
    return (subsets != full).any(-1)


def _levels_of(row: Tensor, rng: np.random.Generator, nested: bool) -> list[list[bool]]:
    count = len(row)
    have = [m for m in range(count) if row[m]]
    chain = rng.permutation(have)
    subsets = []
    for size in range(count - 1, 0, -1):
        chosen = chain[:size] if nested else rng.permutation(have)[:size]
        subsets.append([m in chosen for m in range(count)])
    return subsets

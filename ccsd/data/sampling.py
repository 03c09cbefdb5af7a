"""Which case and which box a sample shows depends only on (seed, step, sample).

So any number of processes together see what one process would see, and a run resumes at a step without other state.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from ccsd.data.batch import Corner, Patch
from ccsd.randomness import Stream, generator


def samples_of(rank: int, world: int, global_batch: int) -> tuple[int, ...]:
    """Return the samples of a step that a process takes: contiguous blocks of near equal size."""
    return tuple(i for i in range(global_batch) if i * world // global_batch == rank)


def case_number(seed: int, step: int, sample: int, *, global_batch: int, cases: int) -> int:
    """Return the position of the case that a sample shows: every case once, in a new order, in each pass."""
    drawn = step * global_batch + sample
    return int(_order(seed, drawn // cases, cases)[drawn % cases])


def corner(
    seed: int,
    step: int,
    sample: int,
    *,
    shape: Sequence[int],
    patch: Patch,
    foreground: Mapping[int, Sequence[int]],
    share: float,
) -> Corner:
    """Return the first voxel of a sample's patch.

    Parameters
    ----------
    shape
        D, H, W of the case. Where it is smaller than the patch, the corner is negative or 0 and the patch contains it.
    foreground
        Flat voxel indices by class. With probability `share` the patch is centred on one, as far as the case's
        borders allow; each class is as likely as any other.
    """
    rng = generator(Stream.PATCH, seed, step, sample)
    lowest = [min(0, n - p) for n, p in zip(shape, patch, strict=True)]
    highest = [max(0, n - p) for n, p in zip(shape, patch, strict=True)]
    free = rng.integers(lowest, np.add(highest, 1))
    if foreground and rng.random() < share:
        voxels = foreground[int(rng.choice(sorted(foreground)))]
        centre = np.unravel_index(voxels[int(rng.integers(len(voxels)))], tuple(shape))
        free = np.clip([int(c) - p // 2 for c, p in zip(centre, patch, strict=True)], lowest, highest)
    d, h, w = (int(c) for c in free)
    return d, h, w


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, cases: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return generator(Stream.CASE_ORDER, seed, epoch).permutation(cases)

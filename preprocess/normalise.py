"""Z-scores of one modality on its own brain mask, in the storage precision, and back.

Voxels that are 0 are outside the brain; every other voxel, negative ones too, is brain.
"""

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import InputError
from preprocess.store.meta import Scale

_NUDGE = np.float16(2.0**-14)
"""Replaces a z-score of exactly 0, since 0 means outside the brain."""
LARGEST = 1e30
"""Upper limit of means and standard deviations, so that nothing overflows in 32 bits."""
_INTEGER_RANGE = 1 << 17


def z_scores(array: NDArray[np.generic]) -> tuple[NDArray[np.float16], Scale]:
    """Return z-scores over the voxels that are not 0, 0 elsewhere, in float16.

    Raises
    ------
    InputError
        If every voxel is 0, all brain voxels are equal, or a voxel is not finite.
    """
    if np.issubdtype(array.dtype, np.integer):
        low, high = int(array.min()), int(array.max())
        if high - low < _INTEGER_RANGE and high <= np.iinfo(np.intp).max:
            return _z_scores_by_table(array, low, high)
    return _z_scores_by_voxel(array)


def from_z_scores(z: NDArray[np.floating], scale: Scale) -> NDArray[np.float32]:
    """Return the source's values for z-scores: 0 outside the brain. The error is at most 2^-11 |value - mean|."""
    inside = z != 0
    values = z.astype(np.float32) * np.float32(scale.std) + np.float32(scale.mean)
    return np.where(inside, values, np.float32(0))


def _z_scores_by_table(array: NDArray[np.generic], low: int, high: int) -> tuple[NDArray[np.float16], Scale]:
    """Compute the same for whole numbers: count and convert the few distinct values instead of millions of voxels."""
    index = array.astype(np.intp) - low
    counts = np.bincount(index.ravel(order="K"), minlength=high - low + 1)
    values = np.arange(low, high + 1, dtype=np.float64)
    weights = np.where(values == 0, 0, counts).astype(np.float64)
    total = weights.sum()
    if total == 0:
        raise InputError("every voxel is 0")
    mean = float(weights @ values / total)
    scale = _checked(mean, float(np.sqrt(weights @ (values - mean) ** 2 / total)))
    table = _nudged((values - scale.mean) / scale.std, values != 0)
    return np.take(table, index), scale


def _z_scores_by_voxel(array: NDArray[np.generic]) -> tuple[NDArray[np.float16], Scale]:
    inside = array != 0
    brain = array[inside].astype(np.float64)
    if brain.size == 0:
        raise InputError("every voxel is 0")
    if not np.isfinite(brain).all():
        raise InputError(f"{int((~np.isfinite(brain)).sum())} voxels are not finite (NaN or infinite)")
    with np.errstate(over="ignore", invalid="ignore"):
        scale = _checked(float(brain.mean()), float(brain.std()))
    z = np.zeros(array.shape, np.float16)
    z[inside] = _nudged((brain - scale.mean) / scale.std, np.bool_(True))
    return z, scale


def _nudged(z: NDArray[np.float64], inside: NDArray[np.bool_] | np.bool_) -> NDArray[np.float16]:
    stored = z.astype(np.float16)
    return np.where(inside, np.where(stored == 0, _NUDGE, stored), np.float16(0))


def _checked(mean: float, std: float) -> Scale:
    if std == 0:
        raise InputError(f"every brain voxel has the same value ({mean:g})")
    if not (1 / LARGEST < std < LARGEST and abs(mean) < LARGEST):
        raise InputError(
            f"mean {mean:g} or standard deviation {std:g} is not between {1 / LARGEST:g} and {LARGEST:g}; "
            "rescale the image"
        )
    return Scale(mean=mean, std=std)

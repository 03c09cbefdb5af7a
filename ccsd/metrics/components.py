"""Which voxels of a region form one lesion, by the rule of a task.

Shapes: D x H x W. Dilation is 18-connected, in voxels; components are 26-connected.
"""

from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ccsd.metrics.regions import Labels, Mask, Spacing
from preprocess.source.geometry import Box, bounding_box
from preprocess.task import Task

Numbers = npt.NDArray[np.int32]
"""The lesion of each voxel, from 1; 0 is none."""
_TOUCH = ndimage.generate_binary_structure(3, 3)
_GROW = ndimage.generate_binary_structure(3, 2)
_STEPS = [np.array(step) for step in product((-1, 0, 1), repeat=3) if 0 < np.count_nonzero(step) < len(step)]
"""From a voxel to its 18 neighbours."""


def reference_lesions(labels: Labels, mask: Mask, region: str, task: Task) -> Numbers:
    """Number the lesions of a region of the reference; `mask` is the region."""
    return _united(labels, mask, region, task, None)


def predicted_lesions(labels: Labels, mask: Mask, region: str, task: Task, spacing: Spacing) -> tuple[Numbers, int]:
    """Number the lesions of a region of a predicted label map, and count them; `mask` is the region."""
    unit = task.lesions.predicted
    if unit is None:
        return _components(mask)
    numbers = _united(labels, mask, region, task, float(np.prod(spacing)) if unit == "mm3" else 1.0)
    return numbers, int(np.count_nonzero(np.bincount(numbers.ravel())[1:]))


def grow(mask: Mask, steps: int) -> Mask:
    """Return the dilation of a mask."""
    return np.asarray(ndimage.binary_dilation(mask, _GROW, iterations=steps)) if steps else mask


def grown_box(mask: Mask, steps: int) -> Box | None:
    """Return the box around a mask with room for its dilation, clipped to the array."""
    box = bounding_box(mask)
    if box is None:
        return None
    d, h, w = (
        slice(max(side.start - steps, 0), min(side.stop + steps, size))
        for side, size in zip(box, mask.shape, strict=True)
    )
    return d, h, w


def _united(labels: Labels, mask: Mask, region: str, task: Task, voxel: float | None) -> Numbers:
    """Number lesions; of a prediction (`voxel` is the size of one in the unit of the rule) without the small ones."""
    rule = task.lesions
    via = rule.merged_via.get(region, ())
    if via:  # a lesion's number matters here: count along the axes of a file, as the official code does
        labels, mask = labels.T, mask.T
    numbers = _merged(mask, rule.limits(region), voxel)
    for name in via:
        alone = [other for other, classes in task.scored_regions.items() if classes == (name,)]
        limits = rule.limits(alone[0] if alone else "")
        numbers = united_by(numbers, _merged(labels == task.classes[name], limits, voxel))
    return numbers.T if via else numbers


def _merged(mask: Mask, limits: tuple[int, float], voxel: float | None) -> Numbers:
    """Number the components of a region; those whose dilations touch are one."""
    steps, smallest = limits
    numbers = np.zeros(mask.shape, np.int32)
    box = grown_box(mask, steps)
    if box is None:
        return numbers
    merged, _ = ndimage.label(grow(mask[box], steps), _TOUCH)
    numbers[box] = np.where(mask[box], merged, 0)
    if voxel is not None:
        small = np.flatnonzero(np.bincount(numbers.ravel()) <= smallest / voxel)
        numbers[np.isin(numbers, small)] = 0
    return numbers


def united_by(numbers: Numbers, others: Numbers) -> Numbers:
    """Unite the lesions that touch the same one of `others`.

    This is as in the official code: nothing is united if only one pair touches, and a lesion that touches several is
    assigned to the first of them.
    """
    pairs = _touching(numbers, others)
    if len(pairs) <= 1:
        return numbers
    new: dict[int, int] = {}
    for _, other in pairs:
        new.setdefault(other, int(numbers.max()) + 1 + len(new))
    table = np.arange(int(numbers.max()) + 1, dtype=np.int32)
    for own, other in reversed(pairs):  # the first pair of each is written last
        table[own] = new[other]
    return np.asarray(table[numbers])


def _touching(numbers: Numbers, others: Numbers) -> list[tuple[int, int]]:
    """Return the pairs of lesions that have adjacent or common voxels, sorted."""
    box = grown_box(numbers > 0, 1)
    if box is None:
        return []
    own, other = numbers[box], np.pad(others[box], 1)
    found: set[tuple[int, int]] = set()
    for step in (np.zeros(3, int), *_STEPS):
        beside = other[tuple(slice(1 + s, 1 + s + n) for s, n in zip(step, own.shape, strict=True))]
        where = (own > 0) & (beside > 0)
        found.update(zip(own[where].tolist(), beside[where].tolist(), strict=True))
    return sorted(found)


def _components(mask: Mask) -> tuple[Numbers, int]:
    """Number the 26-connected components of a mask, from 1, and count them."""
    numbers = np.zeros(mask.shape, np.int32)
    box = bounding_box(mask)
    if box is None:
        return numbers, 0
    numbers[box], count = ndimage.label(mask[box], _TOUCH)
    return numbers, count

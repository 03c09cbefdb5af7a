"""Lesion-wise scores by the rule of BraTS 2023: every lesion counts the same, missed and invented ones as failures.

The rule (glioma): reference lesions are 26-connected components, and those whose dilations touch are one lesion. A
predicted component belongs to every lesion whose dilation it meets; one that meets none is a false positive. A lesion
is scored against the union of its predicted components. Lesions of at most 50 mm3 are left out of the mean, false
positives of any size are not; missed lesions and false positives score Dice 0 and the penalty distance. Where nothing
is left to score, Dice is 1 and the distance 0. The dilation is 3 steps of 18-connectivity, in voxels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ccsd.metrics.regions import Mask
from ccsd.metrics.surface import Spacing, Surface, surface_scores
from preprocess.source.geometry import Box, bounding_box

DILATION_STEPS = 3
SMALLEST_MM3 = 50.0
PENALTY_MM = 374.0
_TOUCH = ndimage.generate_binary_structure(3, 3)
_GROW = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class Lesion:
    """One reference lesion."""

    box: Box
    grown: Mask
    """The lesion's dilation inside the box."""
    voxels: Mask
    """The lesion inside the box."""
    volume_mm3: float
    surface: Surface


@dataclass(frozen=True)
class LesionScores:
    """Means over lesions, and how many there were."""

    dice: float
    hd95: float
    lesions: int
    missed: int
    false: int


def find_lesions(mask: Mask, spacing: Spacing) -> list[Lesion]:
    """Return the lesions of a reference region, each with its dilation."""
    box = _grown_box(mask)
    if box is None:
        return []
    inside = mask[box]
    merged, _ = ndimage.label(_grow(inside), _TOUCH)
    labels = np.where(inside, merged, 0)
    return [_lesion(labels == i, box, spacing) for i in range(1, int(merged.max()) + 1)]


def lesion_scores(lesions: list[Lesion], predicted: Mask, spacing: Spacing) -> LesionScores:
    """Score a predicted region (D x H x W) against the lesions of the reference."""
    components, count = _components(predicted)
    met: set[int] = set()
    dices: list[float] = []
    distances: list[float] = []
    missed = 0
    for lesion in lesions:
        ids = np.unique(components[lesion.box][lesion.grown])
        ids = ids[ids > 0]
        met.update(ids.tolist())
        if lesion.volume_mm3 <= SMALLEST_MM3:
            continue
        missed += ids.size == 0
        dice, distance = _score(lesion, components, ids, spacing)
        dices.append(dice)
        distances.append(distance)
    false = count - len(met)
    total = len(dices) + false
    return LesionScores(
        dice=sum(dices) / total if total else 1.0,
        hd95=(sum(distances) + false * PENALTY_MM) / total if total else 0.0,
        lesions=len(dices),
        missed=missed,
        false=false,
    )


def _score(
    lesion: Lesion, components: npt.NDArray[np.int32], ids: npt.NDArray[np.int32], spacing: Spacing
) -> tuple[float, float]:
    if ids.size == 0:
        return 0.0, PENALTY_MM
    found = np.isin(components, ids)
    shared = np.count_nonzero(found[lesion.box] & lesion.voxels)
    dice = 2 * shared / (np.count_nonzero(found) + np.count_nonzero(lesion.voxels))
    scores = surface_scores(Surface.of(found, spacing), lesion.surface)
    assert scores is not None
    return dice, scores.hd95


def _components(mask: Mask) -> tuple[npt.NDArray[np.int32], int]:
    """Number the 26-connected components of a mask, from 1."""
    numbers = np.zeros(mask.shape, np.int32)
    box = bounding_box(mask)
    if box is None:
        return numbers, 0
    numbers[box], count = ndimage.label(mask[box], _TOUCH)
    return numbers, count


def _lesion(voxels: Mask, outer: Box, spacing: Spacing) -> Lesion:
    inner = _grown_box(voxels)
    assert inner is not None
    d, h, w = (slice(o.start + i.start, o.start + i.stop) for o, i in zip(outer, inner, strict=True))
    inside = voxels[inner]
    return Lesion(
        box=(d, h, w),
        grown=_grow(inside),
        voxels=inside,
        volume_mm3=float(np.count_nonzero(inside) * np.prod(spacing)),
        surface=Surface.of(inside, spacing).moved([d.start, h.start, w.start]),
    )


def _grown_box(mask: Mask) -> Box | None:
    """Return the box around a mask with room for its dilation, clipped to the array."""
    box = bounding_box(mask)
    if box is None:
        return None
    d, h, w = (
        slice(max(side.start - DILATION_STEPS, 0), min(side.stop + DILATION_STEPS, size))
        for side, size in zip(box, mask.shape, strict=True)
    )
    return d, h, w


def _grow(mask: Mask) -> Mask:
    return np.asarray(ndimage.binary_dilation(mask, _GROW, iterations=DILATION_STEPS))

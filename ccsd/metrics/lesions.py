"""Lesion-wise scores by the rules of the BraTS challenges: every lesion, and every false positive, counts the same.

The rule of 2023: reference lesions are 26-connected components, and those whose dilations touch are one lesion. A
predicted component belongs to every lesion whose dilation it meets; one that meets none is a false positive. A lesion
is scored against the union of its predicted components. Small lesions are left out of the mean, false positives of any
size are not; missed lesions and false positives score Dice 0 and the penalty distance. If nothing is left to score,
Dice is 1 and the distance 0.

Since 2024, predicted components are merged like those of the reference, small ones are removed before anything is
scored, and lesions of some regions that touch the same lesion of another class are one (`ccsd.metrics.components`). The
task file has the rule that applies, with its numbers, and cites the official code.
"""

from dataclasses import dataclass

import numpy as np

from ccsd.metrics.components import grow, grown_box, predicted_lesions, reference_lesions
from ccsd.metrics.regions import Labels, Mask, Spacing
from ccsd.metrics.surface import Surface, surface_scores
from preprocess.source.geometry import Box
from preprocess.task import Task


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
    """Means over lesions, and numbers of lesions."""

    dice: float
    hd95: float
    lesions: int
    missed: int
    false: int


def find_lesions(labels: Labels, mask: Mask, region: str, task: Task, spacing: Spacing) -> list[Lesion]:
    """Return the lesions of a region of the reference (D x H x W), each with its dilation; `mask` is the region."""
    numbers, (steps, _) = reference_lesions(labels, mask, region, task), task.lesions.limits(region)
    box = grown_box(numbers > 0, steps)
    if box is None:
        return []
    inside = numbers[box]
    return [_lesion(inside == i, box, steps, spacing) for i in np.unique(inside[inside > 0])]


def lesion_scores(
    lesions: list[Lesion],
    predicted: Labels,
    mask: Mask,
    region: str,
    task: Task,
    spacing: Spacing,
    shape: tuple[int, ...],
) -> LesionScores:
    """Score a region of a predicted label map (D x H x W) against the lesions of the reference.

    `mask` is the region; `shape` is that of the uncropped volume, on whose diagonal some penalties depend.
    """
    rule, (_, smallest) = task.lesions, task.lesions.limits(region)
    penalty = float(np.linalg.norm(shape)) if rule.penalty_mm == "diagonal" else rule.penalty_mm
    components, count = predicted_lesions(predicted, mask, region, task, spacing)
    met: set[int] = set()
    dices: list[float] = []
    distances: list[float] = []
    missed = 0
    for lesion in lesions:
        ids = np.unique(components[lesion.box][lesion.grown])
        ids = ids[ids > 0]
        met.update(ids.tolist())
        if lesion.volume_mm3 <= smallest:
            continue
        missed += ids.size == 0
        dice, distance = _score(lesion, np.isin(components, ids), spacing) if ids.size else (0.0, penalty)
        dices.append(dice)
        distances.append(distance)
    false = count - len(met)
    counted = false if rule.count_false else 0
    total = len(dices) + counted
    return LesionScores(
        dice=sum(dices) / total if total else 1.0,
        hd95=(sum(distances) + counted * penalty) / total if total else 0.0,
        lesions=len(dices),
        missed=missed,
        false=false,
    )


def _score(lesion: Lesion, found: Mask, spacing: Spacing) -> tuple[float, float]:
    shared = np.count_nonzero(found[lesion.box] & lesion.voxels)
    dice = 2 * shared / (np.count_nonzero(found) + np.count_nonzero(lesion.voxels))
    scores = surface_scores(Surface.of(found, spacing), lesion.surface)
    assert scores is not None
    return dice, scores.hd95


def _lesion(voxels: Mask, outer: Box, steps: int, spacing: Spacing) -> Lesion:
    inner = grown_box(voxels, steps)
    assert inner is not None
    d, h, w = (slice(o.start + i.start, o.start + i.stop) for o, i in zip(outer, inner, strict=True))
    inside = voxels[inner]
    return Lesion(
        box=(d, h, w),
        grown=grow(inside, steps),
        voxels=inside,
        volume_mm3=float(np.count_nonzero(inside) * np.prod(spacing)),
        surface=Surface.of(inside, spacing).moved([d.start, h.start, w.start]),
    )

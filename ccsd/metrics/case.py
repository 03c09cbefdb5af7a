"""All scores of one case: a reference prepared once, any number of predictions compared with it."""

from dataclasses import dataclass

import numpy as np

from ccsd.metrics.lesions import Lesion, LesionScores, find_lesions, lesion_scores
from ccsd.metrics.policy import BOTH, NEITHER, Policy, which_is_empty
from ccsd.metrics.regions import Labels, Mask, Spacing, clean_up, region_mask
from ccsd.metrics.surface import Surface, SurfaceScores, surface_scores
from preprocess.task import Task

Score = float | int | str
NAN = float("nan")
SCORE_COLUMNS = {
    "empty": "which region is empty: `no`, `prediction` (missed), `reference` (a false positive), `both`",
    "dice": "2 x overlap / sum of the volumes, 0 to 1",
    "hd95": "mm. The 95th percentile of the distance from each surface voxel to the other surface, the larger of both "
    "directions, as BraTS and MONAI define it",
    "hd95_pooled": "mm. The 95th percentile of both directions' distances together, as in medpy and most published "
    "tables",
    "nsd": "normalised surface Dice: the share of both surfaces within 1 mm of the other",
    "sensitivity": "the share of the reference that was found; empty where there is no reference",
    "precision": "the share of the prediction that is right; empty where there is no prediction",
    "volume_mm3": "volume of the prediction",
    "reference_mm3": "volume of the reference",
    "lesion_dice": "mean Dice over lesions by the rule of the task's challenge",
    "lesion_hd95": "mm. Mean HD95 over lesions by the same rule",
    "lesions": "lesions of the reference above the smallest volume of the rule",
    "lesions_missed": "those of them that no predicted lesion meets",
    "lesions_false": "predicted lesions that meet no lesion of the reference",
}
"""The columns of scores, with their meaning."""
CLEANED = ("dice", "hd95", "hd95_pooled", "nsd", "lesion_dice", "lesion_hd95")
"""The columns that exist a second time, as `*_clean`, for the cleaned prediction."""


@dataclass(frozen=True)
class _Region:
    mask: Mask
    voxels: int
    surface: Surface
    lesions: list[Lesion]


class Reference:
    """The reference of one case; what every comparison needs is computed once.

    Parameters
    ----------
    labels
        D x H x W, classes of the task.
    spacing
        Distance of voxels in millimetres along the three axes.
    policy
        How empty regions are scored.
    task
        The regions, the lesion-wise rule and the clean-up.
    shape
        Shape of the volume before it was cropped, by default that of `labels`.
    """

    def __init__(
        self, labels: Labels, spacing: Spacing, policy: Policy, task: Task, shape: tuple[int, ...] | None = None
    ) -> None:
        self._spacing, self._policy, self._task = spacing, policy, task
        self._shape = shape or labels.shape
        self._regions = {name: self._prepare(labels, name) for name in task.scored_regions}

    def score(self, labels: Labels, *, cleanup: bool = False) -> list[dict[str, Score]]:
        """Return one row per scored region for a predicted label map.

        Columns without a suffix are for the prediction as it is; those ending in `_clean` are for the prediction after
        the task's clean-up, if `cleanup`.
        """
        cleaned = clean_up(labels, self._spacing, self._task) if cleanup else labels
        rows = []
        for name, reference in self._regions.items():
            row = self._score_region(labels, name, reference)
            other = row if cleaned is labels else self._score_region(cleaned, name, reference)
            rows.append({"region": name, **row, **{f"{key}_clean": other[key] for key in CLEANED}})
        return rows

    def _prepare(self, labels: Labels, region: str) -> _Region:
        mask = region_mask(labels, region, self._task)
        lesions = find_lesions(labels, mask, region, self._task, self._spacing)
        return _Region(mask, int(np.count_nonzero(mask)), Surface.of(mask, self._spacing), lesions)

    def _score_region(self, labels: Labels, region: str, reference: _Region) -> dict[str, Score]:
        mask = region_mask(labels, region, self._task)
        lesions = lesion_scores(reference.lesions, labels, mask, region, self._task, self._spacing, self._shape)
        voxels = int(np.count_nonzero(mask))
        shared = int(np.count_nonzero(mask & reference.mask))
        empty = which_is_empty(voxels, reference.voxels)
        voxel_mm3 = float(np.prod(self._spacing))
        return {
            "empty": empty,
            "dice": self._dice(shared, voxels + reference.voxels, empty),
            **self._surface(mask, reference, empty),
            "sensitivity": shared / reference.voxels if reference.voxels else NAN,
            "precision": shared / voxels if voxels else NAN,
            "volume_mm3": voxels * voxel_mm3,
            "reference_mm3": reference.voxels * voxel_mm3,
            **_lesion_columns(lesions),
        }

    def _dice(self, shared: int, total: int, empty: str) -> float:
        if empty == BOTH:
            return 1.0 if self._policy.score_both_empty else NAN
        return 2 * shared / total

    def _surface(self, mask: Mask, reference: _Region, empty: str) -> dict[str, Score]:
        scores = None
        if empty == NEITHER:
            scores = surface_scores(Surface.of(mask, self._spacing), reference.surface)
        if scores is None:
            scores = self._without_surface(empty)
        return {"hd95": scores.hd95, "hd95_pooled": scores.hd95_pooled, "nsd": scores.nsd}

    def _without_surface(self, empty: str) -> SurfaceScores:
        if empty != BOTH:
            return SurfaceScores(self._policy.hd95_penalty, self._policy.hd95_penalty, 0.0)
        return SurfaceScores(0.0, 0.0, 1.0) if self._policy.score_both_empty else SurfaceScores(NAN, NAN, NAN)


def _lesion_columns(scores: LesionScores) -> dict[str, Score]:
    return {
        "lesion_dice": scores.dice,
        "lesion_hd95": scores.hd95,
        "lesions": scores.lesions,
        "lesions_missed": scores.missed,
        "lesions_false": scores.false,
    }

"""All scores of one case: a reference prepared once, any number of predictions compared with it."""

from dataclasses import dataclass

import numpy as np

from ccsd.metrics.lesions import Lesion, LesionScores, find_lesions, lesion_scores
from ccsd.metrics.policy import BOTH, NEITHER, Policy, which_is_empty
from ccsd.metrics.regions import Labels, Mask, clean_enhancing, region_mask
from ccsd.metrics.surface import Spacing, Surface, SurfaceScores, surface_scores
from preprocess.modalities import REGIONS

Score = float | int | str
NAN = float("nan")
SCORE_COLUMNS = {
    "empty": "which region is empty: `no`, `prediction` (missed), `reference` (a false positive), `both`",
    "dice": "2 x overlap / sum of the volumes, 0 to 1",
    "hd95": "mm. The 95th percentile of the distance from each surface voxel to the other surface, the larger of both "
    "directions, as BraTS and MONAI define it",
    "hd95_pooled": "mm. The 95th percentile of both directions' distances together, as medpy and most published tables "
    "have it",
    "nsd": "normalised surface Dice: the share of both surfaces within 1 mm of the other",
    "sensitivity": "the share of the reference that was found; empty where there is no reference",
    "precision": "the share of the prediction that is right; empty where there is no prediction",
    "volume_mm3": "volume of the prediction",
    "reference_mm3": "volume of the reference",
    "lesion_dice": "mean Dice over lesions by the rule of BraTS 2023",
    "lesion_hd95": "mm. Mean HD95 over lesions by the rule of BraTS 2023",
    "lesions": "lesions of the reference above 50 mm3",
    "lesions_missed": "of them, those that no predicted component meets",
    "lesions_false": "predicted components that meet no lesion",
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
    """The reference of one case, with what every comparison needs computed once.

    Parameters
    ----------
    labels
        D x H x W, classes 0 to 3.
    spacing
        Distance of voxels in millimetres along the three axes.
    policy
        What is scored where a region is empty.
    """

    def __init__(self, labels: Labels, spacing: Spacing, policy: Policy) -> None:
        self._spacing = spacing
        self._policy = policy
        self._regions = {name: self._prepare(region_mask(labels, name)) for name in REGIONS}

    def score(self, labels: Labels, min_enhancing: int = 0) -> list[dict[str, Score]]:
        """Return one row per region for a predicted label map.

        Columns without suffix are of the prediction as it is; those ending in `_clean` are of the prediction whose
        ET became NCR because it had fewer than `min_enhancing` voxels.
        """
        cleaned = clean_enhancing(labels, min_enhancing)
        rows = []
        for name, reference in self._regions.items():
            row = self._score_region(region_mask(labels, name), reference)
            other = row if cleaned is labels else self._score_region(region_mask(cleaned, name), reference)
            rows.append({"region": name, **row, **{f"{key}_clean": other[key] for key in CLEANED}})
        return rows

    def _prepare(self, mask: Mask) -> _Region:
        surface = Surface.of(mask, self._spacing)
        return _Region(mask, int(np.count_nonzero(mask)), surface, find_lesions(mask, self._spacing))

    def _score_region(self, mask: Mask, reference: _Region) -> dict[str, Score]:
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
            **_lesion_columns(lesion_scores(reference.lesions, mask, self._spacing)),
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

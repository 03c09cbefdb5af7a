"""Measure how well the expected Dice of calibrated models holds on test cases."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ccsd.inference.calibrated import SETTINGS
from ccsd.inference.confidence import COLUMN
from ccsd.records import Calibration, short_hash
from ccsd.report.results import StudyResults
from ccsd.study import CALIBRATIONS

WORST = 0.1
"""Share of the segmentations, those with the lowest Dice, that count as failures."""
_FEWEST, _FEWEST_SHARED = 3, 10
"""Fewest cases for a rank correlation, and fewest segmentations for a tenth of them."""


@dataclass(frozen=True)
class Held:
    """How well the expected Dice holds for one region and number of sequences (None: all of them)."""

    region: str
    sequences: int | None
    cases: int
    dice: float
    expected: float
    covered: float
    """Share of the segmentations whose Dice is in the interval; NaN without intervals."""
    width: float
    rank: float
    """Spearman's correlation of expected and true Dice."""
    within: float
    """Mean of this correlation within single combinations."""
    in_tenth: float
    """Share of the failures in the tenth with the lowest expected Dice; NaN for fewer than ten segmentations."""
    in_fifth: float


def expected_scores(study: StudyResults, experiment: str) -> pd.DataFrame:
    """Return the scores of an experiment with `expected`, `low` and `high`, if its models are calibrated.

    Calibrations of other weights, or with other windows or flips than those that were scored, are ignored.
    """
    part = study.metrics[(study.metrics["experiment"] == experiment) & study.metrics[COLUMN].notna()]
    known = _calibrations(study)
    part = part[part["model_hash"].isin(list(known))]
    return with_expected(part, known)


def with_expected(scores: pd.DataFrame, known: dict[str, Calibration]) -> pd.DataFrame:
    """Return scores with the expectations of calibrations, found by `model_hash`; other scores are left out.

    The new columns are `expected`, `low` and `high`, and `level`.
    """
    keys = zip(scores["model_hash"], scores["region"], scores["modalities"], scores[COLUMN], strict=True)
    found = [known[model].expected(str(region), int(size), float(sure)) for model, region, size, sure in keys]
    rows = [(np.nan,) * 4 if one is None else (one.value, one.low, one.high, one.level) for one in found]
    columns = pd.DataFrame(rows, scores.index, ["expected", "low", "high", "level"], dtype=np.float64)
    return scores.join(columns).dropna(subset=["expected", "dice"])


def remarks(study: StudyResults, scores: pd.DataFrame) -> str:
    """Return remarks on the expectations of an experiment (`expected_scores`)."""
    if scores.empty:
        return ""
    levels = " and ".join(f"{100 * level:g} %" for level in sorted(scores["level"].unique()))
    own = study.metrics[study.metrics["model_hash"].isin(scores["model_hash"])]
    own = own[own["region"].isin(study.task.regions)]  # other regions are scored, but are not an output of a model
    bare, missed = int(own["empty"].isin(("prediction", "both")).sum()), int((own["empty"] == "prediction").sum())
    text = f"The interval should contain the Dice of {levels} of the segmentations."
    if bare == 0:
        return text
    return (
        f"{text} Where nothing of a region is segmented, there is no expected Dice. This happened {bare} "
        f"time{'s' * (bare != 1)}, {missed} of them wrongly; the table does not include them."
    )


def held(scores: pd.DataFrame) -> list[Held]:
    """Return how well expectations hold, by region: for each number of sequences, then for all."""
    found = []
    for region, part in scores.groupby("region", sort=False):
        sizes = sorted(part["modalities"].unique().tolist())
        found += [_held(str(region), int(size), part[part["modalities"] == size]) for size in sizes]
        found += [_held(str(region), None, part)] if len(sizes) > 1 else []
    return found


def _held(region: str, sequences: int | None, part: pd.DataFrame) -> Held:
    has_interval = part["low"].notna()
    inside = (part["low"] <= part["dice"]) & (part["dice"] <= part["high"])
    own = [_rank(one) for _, one in part.groupby(["subset", "model_hash"]) if one["case"].nunique() >= _FEWEST]
    own = [rank for rank in own if not np.isnan(rank)]
    return Held(
        region,
        sequences,
        int(part["case"].nunique()),
        dice=float(part["dice"].mean()),
        expected=float(part["expected"].mean()),
        covered=float(inside[has_interval].mean()),
        width=float((part["high"] - part["low"]).mean()),
        rank=_rank(part),
        within=float(np.mean(own)) if own else np.nan,
        in_tenth=found_share(part, 0.1),
        in_fifth=found_share(part, 0.2),
    )


def found_share(part: pd.DataFrame, share: float) -> float:
    """Return the share of the failures among this share of the segmentations with the lowest expected Dice.

    Segmentations with equal expected Dice are ordered by confidence, the lowest first.
    """
    if len(part) < _FEWEST_SHARED:
        return np.nan
    worst = part.nsmallest(max(1, round(WORST * len(part))), "dice").index
    suspected = part.nsmallest(max(1, round(share * len(part))), ["expected", COLUMN]).index
    return float(worst.isin(suspected).mean())


def _rank(part: pd.DataFrame) -> float:
    if part["expected"].nunique() < 2 or part["dice"].nunique() < 2:  # noqa: PLR2004 - nothing to order
        return np.nan
    return float(part["expected"].corr(part["dice"], "spearman"))


def _calibrations(study: StudyResults) -> dict[str, Calibration]:
    """Return the calibrations of the study's runs that apply to what was scored, by the hash in tables."""
    files = sorted(study.folder.root.glob(f"runs/*/{CALIBRATIONS}"))
    found = {one.model_hash: one for one in map(Calibration.read_file, files)}
    used: dict[str, list[Any]] = {}
    for record in study.evaluations.values():
        identity = record.identity
        settings = {**identity.settings, **(identity.model_extra or {})}
        used.setdefault(identity.model_hash or "", []).append({name: settings.get(name) for name in SETTINGS})
    return {
        short_hash(model): one
        for model, one in found.items()
        if model in used and all(scored == one.settings for scored in used[model])
    }

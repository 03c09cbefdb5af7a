"""How well the expected Dice of calibrated models holds on test cases."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ccsd.evaluation.tables import DIGITS
from ccsd.inference.calibrated import SETTINGS
from ccsd.inference.confidence import COLUMN
from ccsd.records import Calibration
from ccsd.report.results import StudyResults
from ccsd.study import CALIBRATION_FILE

WORST = 0.1
"""Share of the segmentations, those of lowest Dice, that are called failures."""
_FEWEST = 3
"""Cases for a rank correlation."""


@dataclass(frozen=True)
class Held:
    """How well it holds for one region and number of sequences (None: all of them)."""

    region: str
    sequences: int | None
    cases: int
    dice: float
    expected: float
    covered: float
    """Share of the segmentations whose Dice lies in the interval; NaN without intervals."""
    width: float
    rank: float
    """Spearman's correlation of expected and true Dice."""
    within: float
    """The mean of those within single combinations."""
    in_tenth: float
    """Share of the failures that are in the tenth with the lowest expected Dice."""
    in_fifth: float


def expected_scores(study: StudyResults, experiment: str) -> pd.DataFrame:
    """Return the scores of an experiment with `expected`, `low` and `high`, where its models are calibrated.

    Calibrations of other weights, or of other windows or flips than those that were scored, do not count.
    """
    part = study.metrics[(study.metrics["experiment"] == experiment) & study.metrics[COLUMN].notna()]
    known = _calibrations(study)
    part = part[part["model_hash"].isin(list(known))]
    return with_expected(part, known)


def with_expected(scores: pd.DataFrame, known: dict[str, Calibration]) -> pd.DataFrame:
    """Return scores with what calibrations, by `model_hash` in the table, expect of them; others are left out."""
    keys = zip(scores["model_hash"], scores["region"], scores["modalities"], scores[COLUMN], strict=True)
    found = [known[model].expected(str(region), int(size), float(sure)) for model, region, size, sure in keys]
    rows = [(np.nan,) * 3 if one is None else (one.value, one.low, one.high) for one in found]
    columns = pd.DataFrame(rows, scores.index, ["expected", "low", "high"], dtype=np.float64)
    return scores.join(columns).dropna(subset=["expected", "dice"])


def held(scores: pd.DataFrame) -> list[Held]:
    """Return how well expectations hold, by region for each number of sequences, then for all."""
    found = []
    for region, part in scores.groupby("region", sort=False):
        sizes = sorted(part["modalities"].unique().tolist())
        found += [_held(str(region), int(size), part[part["modalities"] == size]) for size in sizes]
        found += [_held(str(region), None, part)] if len(sizes) > 1 else []
    return found


def _held(region: str, sequences: int | None, part: pd.DataFrame) -> Held:
    has_interval = part["low"].notna()
    inside = (part["low"] <= part["dice"]) & (part["dice"] <= part["high"])
    own = [_rank(one) for _, one in part.groupby("subset") if one["case"].nunique() >= _FEWEST]
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
    """Return which part of the failures is among the share of the segmentations with the lowest expected Dice."""
    worst = part.nsmallest(max(1, round(WORST * len(part))), "dice").index
    suspected = part.nsmallest(max(1, round(share * len(part))), "expected").index
    return float(worst.isin(suspected).mean())


def _rank(part: pd.DataFrame) -> float:
    if part["expected"].nunique() < 2 or part["dice"].nunique() < 2:  # noqa: PLR2004 - nothing to order
        return np.nan
    return float(part["expected"].corr(part["dice"], "spearman"))


def _calibrations(study: StudyResults) -> dict[str, Calibration]:
    """Return the calibrations of the study's runs that hold for what was scored, by the hash in tables."""
    pattern = f"runs/*/{CALIBRATION_FILE.replace('.', '*.')}"
    files = sorted(study.folder.root.glob(pattern))
    found = {one.model_hash: one for one in (Calibration.parse(path.read_bytes(), path) for path in files)}
    used: dict[str, list[Any]] = {}
    for record in study.evaluations.values():
        identity = record.identity
        told = {**identity.settings, **(identity.model_extra or {})}
        used.setdefault(identity.model_hash or "", []).append({name: told.get(name) for name in SETTINGS})
    return {
        model[:DIGITS]: one
        for model, one in found.items()
        if model in used and all(settings == one.settings for settings in used[model])
    }

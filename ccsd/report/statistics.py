"""Means with bootstrap intervals, what a missing sequence costs, and paired tests between experiments.

Cases are what is resampled: repeated training seeds are averaged per case first, and the scores of one case under
several combinations stay together.
"""

from collections.abc import Iterator
from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from preprocess.modalities import MODALITIES, REGIONS, SUBSET_ORDER

Matrix = npt.NDArray[np.float64]
FULL = "+".join(MODALITIES)
RESAMPLES = 2000
CONFIDENCE = 0.95
METRICS = (
    "dice", "hd95", "hd95_pooled", "nsd", "sensitivity", "precision", "lesion_dice", "lesion_hd95",
    "dice_clean", "hd95_clean", "hd95_pooled_clean", "nsd_clean", "lesion_dice_clean", "lesion_hd95_clean",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "experiment", "scope", "name", "region", "metric", "cases", "seeds", "mean", "low", "high", "median", "drop",
    "drop_low", "drop_high", "both_empty", "missed", "invented", "policy", "min_enhancing", "model_hash", "split_hash",
)  # fmt: skip
COMPARISON_COLUMNS = (
    "experiment", "baseline", "subset", "region", "metric", "cases", "difference", "low", "high", "p", "p_holm",
)  # fmt: skip


def subset_order(names: object) -> list[str]:
    """Return the names of combinations in the order of the field; others follow as they are."""
    found = [str(name) for name in names]  # type: ignore[attr-defined]
    known = [name for name in SUBSET_ORDER if name in found]
    return known + sorted(set(found) - set(known))


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return means with intervals per combination, per number of modalities and over all, one row per metric.

    Parameters
    ----------
    metrics
        Table of scores, as `ccsd.evaluation.read_metrics` returns it.

    Returns
    -------
    DataFrame
        Columns `SUMMARY_COLUMNS`. `scope` is `subset`, `size` or `overall`; `low` and `high` are the 95 % percentile
        bootstrap interval over cases, empty with fewer than two; `drop` is the mean minus that of all modalities.
    """
    rows = []
    for (experiment, region), part in metrics.groupby(["experiment", "region"], sort=False):
        facts = {"experiment": experiment, "region": region, **_facts(part)}
        wides = {metric: case_matrix(part, metric) for metric in METRICS}
        for scope, name, columns in scopes(subset_order(part["subset"].unique())):
            shared = {**facts, "scope": scope, "name": name, **_empties(part[part["subset"].isin(columns)])}
            rows += [{**shared, "metric": metric, **_describe(wide, columns)} for metric, wide in wides.items()]
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def compare(metrics: pd.DataFrame, metric: str = "dice") -> pd.DataFrame:
    """Return paired Wilcoxon signed-rank tests of every pair of experiments, per combination and region.

    Only cases that both experiments scored take part. `p_holm` is corrected for all comparisons of the pair
    (15 combinations x 3 regions) by Holm's method. `difference` is experiment minus baseline, with a bootstrap
    interval over cases.
    """
    rows: list[dict[str, object]] = []
    for baseline, experiment in combinations(metrics["experiment"].unique(), 2):
        pair = [
            {"experiment": experiment, "baseline": baseline, "subset": name, "region": region, "metric": metric, **test}
            for region in REGIONS
            for name, test in _paired(metrics, (str(experiment), str(baseline)), region, metric)
        ]
        corrected = holm(np.array([row["p"] for row in pair], np.float64))
        rows += [{**row, "p_holm": p} for row, p in zip(pair, corrected.tolist(), strict=True)]
    return pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))


def case_matrix(part: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return one score per case (rows) and combination (columns, in the order of the field), seeds averaged."""
    wide = part.pivot_table(index="case", columns="subset", values=metric, aggfunc="mean", dropna=False, observed=True)
    return wide.reindex(columns=subset_order(part["subset"].unique())).astype(np.float64)


def scopes(names: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield what is averaged: each combination, each number of modalities, and all of them."""
    for name in names:
        yield "subset", name, [name]
    known = [name for name in names if name in SUBSET_ORDER]
    for size in range(1, len(MODALITIES) + 1):
        same = [name for name in known if name.count("+") + 1 == size]
        if same:
            yield "size", str(size), same
    if len(names) > 1:
        yield "overall", "all", names


def bootstrap(values: Matrix, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Return the percentile interval of the mean of a cases x columns matrix, resampling cases.

    The mean is that of the columns' means. NaN are left out; with fewer than two cases there is no interval.
    """
    if len(values) < 2:  # noqa: PLR2004 - one case has no spread
        return float("nan"), float("nan")
    weights = _resampling(len(values), resamples, seed)
    present = ~np.isnan(values)
    totals, counts = weights @ np.where(present, values, 0.0), weights @ present
    means = np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(_mean(means, axis=1), [tail, 1 - tail]).tolist()
    return low, high


def holm(p: Matrix) -> Matrix:
    """Return p-values corrected for being many by Holm's step-down method; NaN stay NaN and do not count."""
    corrected = np.full(len(p), np.nan)
    valid = np.flatnonzero(~np.isnan(p))
    order = valid[np.argsort(p[valid])]
    steps = p[order] * (len(order) - np.arange(len(order)))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


@cache
def _resampling(cases: int, resamples: int, seed: int) -> Matrix:
    """Return how often each case is drawn in each resample: resamples x cases."""
    picks = np.random.default_rng(seed).integers(0, cases, (resamples, cases))
    return np.stack([np.bincount(row, minlength=cases) for row in picks]).astype(np.float64)


def _describe(wide: pd.DataFrame, columns: list[str]) -> dict[str, float | int]:
    values = wide[columns].to_numpy()
    values = values[~np.isnan(values).all(axis=1)]
    low, high = bootstrap(values)
    per_case = _mean(values, axis=1)
    row = {
        "cases": len(values),
        "mean": _overall(values),
        "low": low,
        "high": high,
        "median": float(np.median(per_case)) if len(per_case) else float("nan"),
    }
    if FULL in wide:
        change = wide[columns].sub(wide[FULL], axis=0).dropna(how="all").to_numpy()
        drop_low, drop_high = bootstrap(change)
        row |= {"drop": _overall(change), "drop_low": drop_low, "drop_high": drop_high}
    return row


def _overall(values: Matrix) -> float:
    return float(_mean(_mean(values, axis=0)[None], axis=1)[0]) if len(values) else float("nan")


def _mean(values: Matrix, axis: int) -> Matrix:
    """Mean that leaves out NaN, NaN where nothing is left."""
    present = ~np.isnan(values)
    counts = present.sum(axis=axis)
    totals = np.where(present, values, 0.0).sum(axis=axis)
    means: Matrix = np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0)
    return means


def _facts(part: pd.DataFrame) -> dict[str, object]:
    def all_of(column: str) -> str:
        return ",".join(sorted(str(value) for value in part[column].dropna().unique()))

    return {
        "seeds": max(1, int(part["seed"].nunique())),
        **{name: all_of(name) for name in ("policy", "min_enhancing", "model_hash", "split_hash")},
    }


def _empties(part: pd.DataFrame) -> dict[str, int]:
    counts = part["empty"].value_counts()
    return {
        "both_empty": int(counts.get("both", 0)),
        "missed": int(counts.get("prediction", 0)),
        "invented": int(counts.get("reference", 0)),
    }


def _paired(
    metrics: pd.DataFrame, pair: tuple[str, str], region: str, metric: str
) -> Iterator[tuple[str, dict[str, float | int]]]:
    tables = [case_matrix(metrics[(metrics["experiment"] == e) & (metrics["region"] == region)], metric) for e in pair]
    for name in [name for name in tables[0].columns if name in tables[1].columns]:
        change = tables[0][name].sub(tables[1][name]).dropna().to_numpy()
        low, high = bootstrap(change[:, None])
        difference = float(change.mean()) if len(change) else float("nan")
        yield name, {"cases": len(change), "difference": difference, "low": low, "high": high, "p": _wilcoxon(change)}


def _wilcoxon(change: Matrix) -> float:
    if len(change) == 0:
        return float("nan")
    return float(stats.wilcoxon(change).pvalue) if np.any(change != 0) else 1.0

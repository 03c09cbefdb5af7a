"""Means with bootstrap intervals, and what a missing sequence costs.

The bootstrap resamples cases: training seeds are averaged per case first, and the scores of one case under several
combinations stay together.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from ccsd.metrics.case import CLEANED, SCORE_COLUMNS
from preprocess.task import Task

Matrix = npt.NDArray[np.float64]
RESAMPLES = 2000
CONFIDENCE = 0.95
_COUNTED = {"empty", "volume_mm3", "reference_mm3", "lesions", "lesions_missed", "lesions_false"}
METRICS = (*(name for name in SCORE_COLUMNS if name not in _COUNTED), *(f"{name}_clean" for name in CLEANED))
"""Columns of scores whose means are meaningful."""
SUMMARY_COLUMNS = (
    "experiment", "scope", "name", "region", "metric", "cases", "seeds", "mean", "low", "high", "median", "drop",
    "drop_low", "drop_high", "both_empty", "missed", "false_positive", "policy", "cleanup", "task",
    "model_hash", "split_hash",
)  # fmt: skip


def subset_order(names: Iterable[object], task: Task) -> list[str]:
    """Return the names of combinations in the order of tables; others follow, sorted."""
    found = {str(name) for name in names}
    known = task.ordered_subsets(name for name in found if task.is_subset(name))
    return known + sorted(found - set(known))


def summarise(metrics: pd.DataFrame, task: Task, names: Sequence[str] = METRICS) -> pd.DataFrame:
    """Return means with intervals per combination, per number of modalities and overall, one row per metric.

    Parameters
    ----------
    metrics
        Table of scores, as `ccsd.evaluation.read_metrics` returns it.
    task
        The task of the scores.
    names
        The columns of scores to summarise.

    Returns
    -------
    DataFrame
        Columns `SUMMARY_COLUMNS`. `scope` is `subset`, `size` or `overall`; `low` and `high` are the 95 % percentile
        bootstrap interval over cases, empty for fewer than two; `drop` is the mean minus that of all modalities.
    """
    rows = []
    for (experiment, region), part in metrics.groupby(["experiment", "region"], sort=False):
        about = {"experiment": experiment, "region": region, **facts(part)}
        order = subset_order(part["subset"].unique(), task)
        wides = {metric: table.to_numpy() for metric, table in _case_matrices(part, names, task)}
        full = [order.index(task.full_name)] if task.full_name in order else None
        for scope, name, columns in scopes(order, task):
            shared = {**about, "scope": scope, "name": name, **_empties(part[part["subset"].isin(columns)])}
            at = [order.index(column) for column in columns]
            rows += [
                {**shared, "metric": metric, **_mean_in(wide[:, at], None if full is None else wide[:, full])}
                for metric, wide in wides.items()
            ]
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def case_matrix(part: pd.DataFrame, metric: str, task: Task) -> pd.DataFrame:
    """Return one score per case (rows) and combination (columns, in the order of tables), seeds averaged."""
    return dict(_case_matrices(part, [metric], task))[metric]


def _case_matrices(part: pd.DataFrame, metrics: Sequence[str], task: Task) -> Iterator[tuple[str, pd.DataFrame]]:
    wide = part.pivot_table(
        index="case", columns="subset", values=list(metrics), aggfunc="mean", dropna=False, observed=True
    )
    order = subset_order(part["subset"].unique(), task)
    for metric in metrics:
        yield metric, pd.DataFrame(wide[metric]).reindex(columns=order).astype(np.float64)


def scopes(names: list[str], task: Task) -> Iterator[tuple[str, str, list[str]]]:
    """Yield what to average: each combination, each number of modalities if there are several, and all of them."""
    for name in names:
        yield "subset", name, [name]
    known = [name for name in names if task.is_subset(name)]
    for size in range(1, len(task.modalities) + 1) if len(task.modalities) > 1 else ():
        same = [name for name in known if name.count("+") + 1 == size]
        if same:
            yield "size", str(size), same
    if names:
        yield "overall", "all", names


def bootstrap(values: Matrix, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Return the percentile interval of the mean of a cases x columns matrix, resampling cases.

    The mean is that of the columns' means. NaN are left out; for fewer than two cases, there is no interval.
    """
    if len(values) < 2:  # noqa: PLR2004 - one case has no spread
        return float("nan"), float("nan")
    weights = _resampling(len(values), resamples, seed)
    present = ~np.isnan(values)
    totals, counts = weights @ np.where(present, values, 0.0), weights @ present
    means = np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(mean(means, axis=1), [tail, 1 - tail]).tolist()
    return low, high


def overall(values: Matrix) -> float:
    """Return the mean of the columns' means of a cases x columns matrix; NaN if it is empty."""
    return float(mean(mean(values, axis=0)[None], axis=1)[0]) if len(values) else float("nan")


def mean(values: Matrix, axis: int) -> Matrix:
    """Return the mean without NaN; NaN where nothing is left."""
    present = ~np.isnan(values)
    counts = present.sum(axis=axis)
    totals = np.where(present, values, 0.0).sum(axis=axis)
    means: Matrix = np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0)
    return means


def facts(part: pd.DataFrame) -> dict[str, object]:
    """Return the origin of the scores of an experiment: seeds, policy, clean-up, hashes."""

    def all_of(column: str) -> str:
        return ",".join(sorted(str(value) for value in part[column].dropna().unique()))

    return {
        "seeds": max(1, int(part["seed"].nunique())),
        **{name: all_of(name) for name in ("policy", "cleanup", "task", "model_hash", "split_hash")},
    }


@cache
def _resampling(cases: int, resamples: int, seed: int) -> Matrix:
    """Return how often each case is drawn in each resample: resamples x cases."""
    picks = np.random.default_rng(seed).integers(0, cases, (resamples, cases))
    return np.stack([np.bincount(row, minlength=cases) for row in picks]).astype(np.float64)


def _mean_in(scores: Matrix, full: Matrix | None) -> dict[str, float | int]:
    """Summarise the scores of cases (rows) under combinations (columns); `full` has those with all sequences."""
    values = _without_empty_rows(scores)
    low, high = bootstrap(values)
    per_case = mean(values, axis=1)
    row = {
        "cases": len(values),
        "mean": overall(values),
        "low": low,
        "high": high,
        "median": float(np.median(per_case)) if len(per_case) else float("nan"),
    }
    if full is not None:
        change = _without_empty_rows(scores - full)
        drop_low, drop_high = bootstrap(change)
        row |= {"drop": overall(change), "drop_low": drop_low, "drop_high": drop_high}
    return row


def _without_empty_rows(values: Matrix) -> Matrix:
    kept: Matrix = values[~np.isnan(values).all(axis=1)]
    return kept


def _empties(part: pd.DataFrame) -> dict[str, int]:
    counts = part["empty"].value_counts()
    return {
        "both_empty": int(counts.get("both", 0)),
        "missed": int(counts.get("prediction", 0)),
        "false_positive": int(counts.get("reference", 0)),
    }


COMPARED = ("dice", "hd95")
COLUMNS = (
    "experiment", "baseline", "scope", "name", "region", "metric", "cases", "seeds", "baseline_seeds", "difference",
    "low", "high", "seeds_low", "seeds_high", "p", "p_holm", "policy", "model_hash", "baseline_model_hash",
    "split_hash",
)  # fmt: skip


def compare(metrics: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return how every experiment differs from every earlier one, with intervals and Wilcoxon signed-rank tests.

    Only cases and combinations that were scored in both experiments are used.

    Parameters
    ----------
    metrics
        Table of scores, as `ccsd.evaluation.read_metrics` returns it.
    task
        The task of the scores.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`. `difference` is experiment minus baseline, `low` and `high` its 95 % bootstrap interval over
        cases. `seeds_low` and `seeds_high` are the least and the greatest difference between a seed of one and a seed
        of the other; they are equal if each has one. `p_holm` is `p` corrected by Holm's method for all comparisons of
        the pair with the same metric and scope: combinations x regions for `subset`, sizes x regions for `size`,
        regions for `overall`.
    """
    rows: list[dict[str, object]] = []
    for baseline, experiment in combinations(metrics["experiment"].unique(), 2):
        for metric in COMPARED:
            pair = list(_compare_pair(metrics, (str(experiment), str(baseline)), metric, task))
            for scope in dict.fromkeys(row["scope"] for row in pair):
                family = [row for row in pair if row["scope"] == scope]
                corrected = holm(np.array([row["p"] for row in family], np.float64)).tolist()
                rows += [{**row, "p_holm": p} for row, p in zip(family, corrected, strict=True)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def holm(p: Matrix) -> Matrix:
    """Return p-values corrected for multiple testing by Holm's step-down method; NaN stay NaN and do not count."""
    corrected = np.full(len(p), np.nan)
    valid = np.flatnonzero(~np.isnan(p))
    order = valid[np.argsort(p[valid])]
    steps = p[order] * (len(order) - np.arange(len(order)))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def _compare_pair(metrics: pd.DataFrame, pair: tuple[str, str], metric: str, task: Task) -> Iterator[dict[str, object]]:
    for region in task.scored_regions:
        parts = [metrics[(metrics["experiment"] == name) & (metrics["region"] == region)] for name in pair]
        own, base = (case_matrix(part, metric, task) for part in parts)
        by_seed = [[case_matrix(rows, metric, task) for rows in seeds] for seeds in _seeds(*parts)]
        both = [name for name in own.columns if name in base.columns]
        change = own[both].sub(base[both]).to_numpy()
        changes = [found.reindex(columns=both).to_numpy() for found in _seed_changes(*by_seed)]
        shared = {"experiment": pair[0], "baseline": pair[1], "region": region, "metric": metric, **_origin(*parts)}
        shared |= {"seeds": len(by_seed[0]), "baseline_seeds": len(by_seed[1])}
        for scope, name, columns in scopes(both, task):
            at = [both.index(column) for column in columns]
            by_seeds = _seed_range(found[:, at] for found in changes)
            yield {**shared, "scope": scope, "name": name, **_test(change[:, at]), **by_seeds}


def _seeds(*parts: pd.DataFrame) -> list[list[pd.DataFrame]]:
    """Return the scores of each seed of two experiments; the cases of a seed may be spread over folds.

    A seed that lacks some of the scores that both have would be compared on other cases, so it does not count. Scores
    without a seed count as one seed, and so do all scores together if no seed is complete.
    """
    both = set.intersection(*map(_scored, parts))
    whole = [[rows for _, rows in part.groupby("seed", dropna=False) if both <= _scored(rows)] for part in parts]
    return [seeds or [part] for seeds, part in zip(whole, parts, strict=True)]


def _scored(part: pd.DataFrame) -> set[tuple[str, str]]:
    return set(part[["case", "subset"]].itertuples(index=False, name=None))


def _seed_changes(own: list[pd.DataFrame], base: list[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield the changes of cases (rows) under combinations from each seed of the second to each of the first."""
    yield from (one.sub(other) for one in own for other in base)


def _seed_range(changes: Iterable[Matrix]) -> dict[str, float]:
    found = [overall(_without_empty_rows(change)) for change in changes]
    found = [difference for difference in found if not math.isnan(difference)]
    return {"seeds_low": min(found, default=math.nan), "seeds_high": max(found, default=math.nan)}


def _origin(part: pd.DataFrame, base: pd.DataFrame) -> dict[str, object]:
    own, other = facts(part), facts(base)
    return {
        **{name: own[name] for name in ("policy", "model_hash", "split_hash")},
        "baseline_model_hash": other["model_hash"],
    }


def _test(change: Matrix) -> dict[str, float | int]:
    """Summarise and test the changes of cases (rows) under combinations (columns)."""
    change = _without_empty_rows(change)
    low, high = bootstrap(change)
    difference, p = overall(change), _wilcoxon(mean(change, axis=1))
    return {"cases": len(change), "difference": difference, "low": low, "high": high, "p": p}


def _wilcoxon(change: Matrix) -> float:
    if len(change) == 0:
        return float("nan")
    return float(stats.wilcoxon(change).pvalue) if np.any(change != 0) else 1.0


SummaryRows = dict[tuple[str, ...], dict[str, Any]]
"""Rows of the summary by experiment, scope, name, region and metric."""


def by_key(summary: pd.DataFrame) -> SummaryRows:
    """Return the rows of the summary by experiment, scope, name, region and metric."""
    keys = summary[["experiment", "scope", "name", "region", "metric"]].itertuples(index=False, name=None)
    rows: list[dict[str, Any]] = [
        dict(zip(summary.columns, row, strict=True)) for row in summary.itertuples(index=False)
    ]
    return dict(zip(keys, rows, strict=True))


def leave_one_out(
    rows: SummaryRows, experiment: str, region: str, task: Task, metric: str = "dice"
) -> dict[str, float]:
    """Return how the mean changes when one sequence is removed from the full set, by sequence."""
    found: dict[str, float] = {}
    for name in task.modalities:
        rest = "+".join(m for m in task.modalities if m != name)
        row = rows.get((experiment, "subset", rest, region, metric))
        if row and not math.isnan(float(row["drop"])):
            found[name] = float(row["drop"])
    return found

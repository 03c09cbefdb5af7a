"""Paired comparisons between experiments: per combination, per number of modalities and over all of them.

What is paired is the case: repeated training seeds are averaged per case first, and so are the combinations of a scope.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from ccsd.report.statistics import Matrix, bootstrap, case_matrix, facts, mean, overall, scopes
from preprocess.modalities import REGIONS

METRICS = ("dice", "hd95")
COLUMNS = (
    "experiment", "baseline", "scope", "name", "region", "metric", "cases", "seeds", "baseline_seeds", "difference",
    "low", "high", "p", "p_holm", "policy", "model_hash", "baseline_model_hash", "split_hash",
)  # fmt: skip


def compare(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return how every experiment differs from every earlier one, with intervals and Wilcoxon signed-rank tests.

    Only cases and combinations that both experiments scored take part.

    Parameters
    ----------
    metrics
        Table of scores, as `ccsd.evaluation.read_metrics` returns it.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`. `difference` is experiment minus baseline, `low` and `high` its 95 % bootstrap interval over
        cases. `p_holm` is `p` corrected by Holm's method for all comparisons of the pair that share metric and scope:
        15 combinations x 3 regions for `subset`, 4 x 3 for `size`, 3 for `overall`.
    """
    rows: list[dict[str, object]] = []
    for baseline, experiment in combinations(metrics["experiment"].unique(), 2):
        for metric in METRICS:
            pair = list(_compare_pair(metrics, (str(experiment), str(baseline)), metric))
            for scope in dict.fromkeys(row["scope"] for row in pair):
                family = [row for row in pair if row["scope"] == scope]
                corrected = holm(np.array([row["p"] for row in family], np.float64)).tolist()
                rows += [{**row, "p_holm": p} for row, p in zip(family, corrected, strict=True)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def holm(p: Matrix) -> Matrix:
    """Return p-values corrected for being many by Holm's step-down method; NaN stay NaN and do not count."""
    corrected = np.full(len(p), np.nan)
    valid = np.flatnonzero(~np.isnan(p))
    order = valid[np.argsort(p[valid])]
    steps = p[order] * (len(order) - np.arange(len(order)))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def _compare_pair(metrics: pd.DataFrame, pair: tuple[str, str], metric: str) -> Iterator[dict[str, object]]:
    for region in REGIONS:
        parts = [metrics[(metrics["experiment"] == name) & (metrics["region"] == region)] for name in pair]
        own, base = (case_matrix(part, metric) for part in parts)
        shared = {"experiment": pair[0], "baseline": pair[1], "region": region, "metric": metric, **_origin(*parts)}
        for scope, name, columns in scopes([name for name in own.columns if name in base.columns]):
            change = own[columns].sub(base[columns]).to_numpy()
            yield {**shared, "scope": scope, "name": name, **_test(change)}


def _origin(part: pd.DataFrame, base: pd.DataFrame) -> dict[str, object]:
    own, other = facts(part), facts(base)
    return {
        **{name: own[name] for name in ("seeds", "policy", "model_hash", "split_hash")},
        "baseline_seeds": other["seeds"],
        "baseline_model_hash": other["model_hash"],
    }


def _test(change: Matrix) -> dict[str, float | int]:
    """Describe the changes of cases (rows) under combinations (columns)."""
    change = change[~np.isnan(change).all(axis=1)]
    low, high = bootstrap(change)
    difference, p = overall(change), _wilcoxon(mean(change, axis=1))
    return {"cases": len(change), "difference": difference, "low": low, "high": high, "p": p}


def _wilcoxon(change: Matrix) -> float:
    if len(change) == 0:
        return float("nan")
    return float(stats.wilcoxon(change).pvalue) if np.any(change != 0) else 1.0

"""Experiments side by side: their means by number of sequences, and how clearly they differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ccsd.report.sentences import display
from preprocess.modalities import REGIONS

Row = dict[str, Any]
OVERALL = ("overall", "all")
FEWEST_CASES = 6
"""With fewer pairs no signed-rank test can reach p < 0.05, and a bootstrap interval means little."""
SeedMeans = dict[str, dict[str, list[float]]]
"""Experiment -> region -> one mean for each seed."""


@dataclass(frozen=True)
class Line:
    """One experiment's mean Dice with one number of sequences."""

    sequences: str
    experiment: str
    seeds: int
    regions: dict[str, Row]
    """Row of the summary by region."""
    first: bool
    """Whether it begins a new number of sequences."""
    best: frozenset[str]
    """Regions in which no other experiment has a higher mean."""


@dataclass(frozen=True)
class Difference:
    """How the mean Dice of one experiment differs from another's, by region."""

    experiment: str
    baseline: str
    sequences: str
    cases: int
    regions: dict[str, Row]
    """Row of the comparison by region."""


def overview(summary: pd.DataFrame) -> list[Line]:
    """Return every experiment's mean Dice by number of sequences, then over all combinations."""
    part = summary[summary["metric"] == "dice"]
    return [line for scope, name in _scopes(part) for line in _lines(part, scope, name)]


def differences(comparison: pd.DataFrame, *scopes: str) -> list[Difference]:
    """Return the paired differences of Dice in the given scopes (`overall`, `size`, `subset`)."""
    part = comparison[(comparison["metric"] == "dice") & comparison["scope"].isin(scopes)]
    groups = part.groupby(["experiment", "baseline", "scope", "name"], sort=False)
    return [_difference(key, rows) for key, rows in groups]


def sequences(scope: str, name: str) -> str:
    """Say what was averaged: `FLAIR + T1ce`, `2 sequences`, `all combinations`."""
    if scope == "size":
        return f"{name} sequence{'s' * (name != '1')}"
    return "all combinations" if (scope, name) == OVERALL else display(name)


def is_clear(row: Row) -> bool:
    """Whether the 95 % interval of a difference excludes 0, on enough cases to say so."""
    return bool(row["cases"] >= FEWEST_CASES and (row["low"] > 0 or row["high"] < 0))


def seed_means(metrics: pd.DataFrame) -> SeedMeans:
    """Return each experiment's mean Dice over cases and combinations, by region, for every training seed."""
    found: SeedMeans = {}
    for experiment, part in metrics.dropna(subset="seed").groupby("experiment", sort=False):
        means = part.groupby(["region", "seed", "subset"])["dice"].mean().groupby(level=["region", "seed"]).mean()
        found[str(experiment)] = {region: [float(mean) for mean in means.get(region, [])] for region in REGIONS}
    return found


def _lines(part: pd.DataFrame, scope: str, name: str) -> Iterator[Line]:
    rows = part[(part["scope"] == scope) & (part["name"] == name)]
    top = rows.groupby("region")["mean"].max().to_dict()
    experiments = [str(experiment) for experiment in rows["experiment"].unique()]
    for experiment in experiments:
        regions = _by_region(rows[rows["experiment"] == experiment])
        best = frozenset(r for r, row in regions.items() if row["mean"] == top[r] and len(experiments) > 1)
        seeds = max(int(row["seeds"]) for row in regions.values())
        yield Line(sequences(scope, name), experiment, seeds, regions, experiment == experiments[0], best)


def _by_region(rows: pd.DataFrame) -> dict[str, Row]:
    return {str(row["region"]): {str(k): v for k, v in row.items()} for _, row in rows.iterrows()}


def _scopes(summary: pd.DataFrame) -> list[tuple[str, str]]:
    kinds = summary.loc[summary["scope"].isin(["size", "overall"]), ["scope", "name"]].drop_duplicates()
    found = [(str(scope), str(name)) for scope, name in kinds.itertuples(index=False)]
    return sorted(found, key=lambda kind: (kind[0] == "overall", kind[1]))


def _difference(key: Any, rows: pd.DataFrame) -> Difference:
    experiment, baseline, scope, name = (str(part) for part in key)
    return Difference(experiment, baseline, sequences(scope, name), int(rows["cases"].max()), _by_region(rows))

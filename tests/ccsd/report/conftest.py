"""Tables of scores made by hand."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from ccsd.report import statistics
from ccsd.report.statistics import METRICS
from support.tasks import GLIOMA

wilcoxon = cache(lambda change, tested=statistics._wilcoxon: tested(np.frombuffer(change)))


@pytest.fixture(autouse=True)
def _equal_changes_are_tested_once(monkeypatch):
    """Scores made by hand differ by the same everywhere; of such ties scipy tries all permutations, for 50 ms."""
    monkeypatch.setattr(statistics, "_wilcoxon", lambda change: wilcoxon(change.tobytes()))


@pytest.fixture
def scores():
    """Return a function that makes a table from dice[case][subset], the same for every region and metric."""

    def make(dice, experiment="ccsd", seed=0, empty="no"):
        rows = [
            {
                "experiment": experiment, "seed": seed, "fold": None, "case": case, "subset": subset, "region": region,
                "empty": empty, **dict.fromkeys(METRICS, value), "policy": "p", "cleanup": "none", "task": "t",
                "model_hash": f"m{seed}", "split_hash": "s",
            }
            for case, by_subset in dice.items()
            for subset, value in by_subset.items()
            for region in GLIOMA.regions
        ]  # fmt: skip
        return pd.DataFrame(rows)

    return make


@pytest.fixture(scope="session")
def add_experiment():
    """Return a function that scores a study's cases again under another name, every Dice times a factor."""

    def add(study, name, factor, seed=0):
        source = study / "evaluation" / "ccsd-s0" / "all"
        other = study / "evaluation" / f"{name}-s{seed}" / "all"
        other.mkdir(parents=True)
        (other / "evaluation.json").write_text((source / "evaluation.json").read_text())
        table = pd.read_csv(source / "metrics.tsv", sep="\t")
        table["experiment"], table["seed"], table["dice"] = name, seed, (table["dice"] * factor).clip(upper=1)
        table.to_csv(other / "metrics.tsv", sep="\t", index=False)

    return add


@pytest.fixture
def find():
    """Return a function that returns the one row with the wanted values."""

    def one(table, **wanted):
        for column, value in wanted.items():
            table = table[table[column] == value]
        assert len(table) == 1
        return table.iloc[0]

    return one

"""Paired differences between experiments against numbers known otherwise."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ccsd.report.statistics import compare, holm
from support.tasks import GLIOMA


def test_holm_by_hand():
    corrected = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.5]))

    np.testing.assert_allclose(corrected, [0.04, 0.09, np.nan, 0.09, 0.5])


def test_paired_test_agrees_with_scipy_and_counts_common_cases_only(scores, find):
    rng = np.random.default_rng(0)
    base = {f"c{i}": {"t1": rng.uniform(0.4, 0.6)} for i in range(12)}
    better = {name: {"t1": row["t1"] + rng.uniform(-0.01, 0.05)} for name, row in base.items()}
    extra = {**better, "only-here": {"t1": 0.9}}
    table = compare(pd.concat([scores(base, "base"), scores(extra, "new")]), GLIOMA)
    row = find(table, scope="subset", region="WT", metric="dice")
    change = np.array([better[name]["t1"] - base[name]["t1"] for name in base])

    assert (row["experiment"], row["baseline"], row["cases"]) == ("new", "base", 12)
    assert row["difference"] == pytest.approx(change.mean())
    assert row["p"] == pytest.approx(stats.wilcoxon(change).pvalue)
    assert row["p_holm"] == pytest.approx(min(1, 3 * row["p"]))


def test_combinations_are_averaged_per_case_before_experiments_are_compared(scores, find):
    base = {"a": {"t1": 0.2, "t2": 0.4, "t1+t2": 0.5}, "b": {"t1": 0.3, "t2": 0.3, "t1+t2": 0.6}}
    new = {"a": {"t1": 0.5, "t2": 0.3, "t1+t2": 0.7}, "b": {"t1": 0.4, "t2": 0.4, "t1+t2": 0.6}}
    table = compare(pd.concat([scores(base, "base"), scores(new, "new")]), GLIOMA)
    pick = {"region": "TC", "metric": "dice"}
    singles, all_of_them = find(table, scope="size", name="1", **pick), find(table, scope="overall", **pick)

    assert singles["difference"] == pytest.approx((0.1 + 0.1) / 2)
    assert all_of_them["difference"] == pytest.approx((0.4 / 3 + 0.2 / 3) / 2)
    assert (all_of_them["low"], all_of_them["high"]) == (pytest.approx(0.2 / 3), pytest.approx(0.4 / 3))


def test_interval_of_a_difference_is_that_of_the_paired_cases(scores, find):
    rng = np.random.default_rng(3)
    hard = {f"c{i}": rng.uniform(0.1, 0.9) for i in range(30)}  # cases differ widely, experiments hardly
    base = {name: {"t1": dice} for name, dice in hard.items()}
    new = {name: {"t1": dice + 0.02 + rng.normal(0, 0.005)} for name, dice in hard.items()}
    row = find(
        compare(pd.concat([scores(base, "base"), scores(new, "new")]), GLIOMA),
        scope="overall",
        region="ET",
        metric="dice",
    )

    assert 0.01 < row["low"] < 0.02 < row["high"] < 0.03


def test_seeds_of_each_experiment_are_averaged_per_case(scores, find):
    parts = [scores({"a": {"t1": 0.2}, "b": {"t1": 0.4}}, "base"), scores({"a": {"t1": 0.5}, "b": {"t1": 0.4}}, "new")]
    parts.append(scores({"a": {"t1": 0.7}, "b": {"t1": 0.6}}, "new", seed=1))
    row = find(compare(pd.concat(parts), GLIOMA), scope="overall", region="WT", metric="dice")

    assert (row["cases"], row["seeds"], row["baseline_seeds"]) == (2, 2, 1)
    assert row["difference"] == pytest.approx((0.4 + 0.1) / 2)
    assert (row["model_hash"], row["baseline_model_hash"]) == ("m0,m1", "m0")


def test_equal_experiments_do_not_differ(scores):
    dice = {"a": dict.fromkeys(GLIOMA.subset_names, 0.5), "b": dict.fromkeys(GLIOMA.subset_names, 0.6)}
    table = compare(pd.concat([scores(dice, "x"), scores(dice, "y")]), GLIOMA)

    assert len(table) == 2 * (45 + 12 + 3)
    assert (table["p_holm"] == 1).all()


def test_a_single_experiment_has_nothing_to_compare(scores):
    assert compare(scores({"a": {"t1": 0.5}}), GLIOMA).empty

"""Means, intervals, drops and tests against numbers known otherwise."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ccsd.report.statistics import FULL, METRICS, bootstrap, compare, holm, summarise
from preprocess.modalities import REGIONS, SUBSET_ORDER


def scores(dice, experiment="ccsd", seed=0, empty="no"):
    """Return a table from dice[case][subset], the same for every region."""
    rows = [
        {
            "experiment": experiment, "seed": seed, "case": case, "subset": subset, "region": region, "empty": empty,
            **dict.fromkeys(METRICS, value), "policy": "p", "min_enhancing": 0, "model_hash": f"m{seed}",
            "split_hash": "s",
        }
        for case, by_subset in dice.items()
        for subset, value in by_subset.items()
        for region in REGIONS
    ]  # fmt: skip
    return pd.DataFrame(rows)


def find(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_means_per_combination_size_and_over_all_are_those_of_the_field():
    dice = {"a": {"t2": 0.2, "t1": 0.4, "t1+t2": 0.9}, "b": {"t2": 0.4, "t1": 0.6, "t1+t2": 1.0}}
    table = summarise(scores(dice))
    pick = {"region": "WT", "metric": "dice"}

    assert find(table, scope="subset", name="t2", **pick)["mean"] == pytest.approx(0.3)
    assert find(table, scope="size", name="1", **pick)["mean"] == pytest.approx(0.4)
    assert find(table, scope="overall", name="all", **pick)["mean"] == pytest.approx((0.3 + 0.5 + 0.95) / 3)


def test_drop_is_the_difference_from_all_sequences():
    table = summarise(scores({"a": {"flair": 0.5, FULL: 0.9}, "b": {"flair": 0.7, FULL: 0.8}}))
    row = find(table, scope="subset", name="flair", region="ET", metric="dice")

    assert row["drop"] == pytest.approx(-0.25)
    assert row["drop_low"] <= row["drop"] <= row["drop_high"]


def test_seeds_are_averaged_per_case_and_not_counted_as_cases():
    dice = {"a": {"t2": 0.2}, "b": {"t2": 0.4}}
    other = {"a": {"t2": 0.4}, "b": {"t2": 0.6}}
    row = find(summarise(pd.concat([scores(dice), scores(other, seed=1)])), scope="subset", region="WT", metric="dice")

    assert (row["cases"], row["seeds"], row["mean"]) == (2, 2, pytest.approx(0.4))
    assert row["model_hash"] == "m0,m1"


def test_cases_without_a_score_are_left_out_and_empties_are_counted():
    dice = {"a": {"t2": 0.2}, "b": {"t2": np.nan}, "c": {"t2": 0.4}}
    row = find(summarise(scores(dice, empty="prediction")), scope="subset", region="WT", metric="dice")

    assert (row["cases"], row["mean"], row["missed"], row["both_empty"]) == (2, pytest.approx(0.3), 3, 0)


def test_bootstrap_interval_agrees_with_scipy_and_is_repeatable():
    values = np.random.default_rng(1).beta(4, 2, 60)
    ours = bootstrap(values[:, None])
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=2).confidence_interval

    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.008)
    assert ours == bootstrap(values[:, None])


def test_bootstrap_keeps_a_case_s_scores_together():
    case = np.random.default_rng(1).normal(size=40)
    together = bootstrap(np.stack([case] * 15, axis=1))

    assert together == pytest.approx(bootstrap(case[:, None]))


def test_one_case_has_no_interval():
    assert np.isnan(bootstrap(np.array([[0.5]]))).all()


def test_holm_by_hand():
    corrected = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.5]))

    np.testing.assert_allclose(corrected, [0.04, 0.09, np.nan, 0.09, 0.5])


def test_paired_test_agrees_with_scipy_and_counts_common_cases_only():
    rng = np.random.default_rng(0)
    base = {f"c{i}": {"t1": rng.uniform(0.4, 0.6)} for i in range(12)}
    better = {name: {"t1": row["t1"] + rng.uniform(-0.01, 0.05)} for name, row in base.items()}
    extra = {**better, "only-here": {"t1": 0.9}}
    table = compare(pd.concat([scores(base, "base"), scores(extra, "new")]))
    row = find(table, region="WT")
    change = np.array([better[name]["t1"] - base[name]["t1"] for name in base])

    assert (row["experiment"], row["baseline"], row["cases"]) == ("new", "base", 12)
    assert row["difference"] == pytest.approx(change.mean())
    assert row["p"] == pytest.approx(stats.wilcoxon(change).pvalue)
    assert row["p_holm"] == pytest.approx(min(1, 3 * row["p"]))


def test_equal_experiments_do_not_differ():
    dice = {"a": dict.fromkeys(SUBSET_ORDER, 0.5), "b": dict.fromkeys(SUBSET_ORDER, 0.6)}
    table = compare(pd.concat([scores(dice, "x"), scores(dice, "y")]))

    assert len(table) == 45
    assert (table["p_holm"] == 1).all()


def test_a_single_experiment_has_nothing_to_compare():
    assert compare(scores({"a": {"t1": 0.5}})).empty

"""Means, intervals and drops against numbers known otherwise."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ccsd.report.statistics import bootstrap, summarise
from support.tasks import GLIOMA


def test_means_per_combination_size_and_over_all_are_those_of_the_field(scores, find):
    dice = {"a": {"t2": 0.2, "t1": 0.4, "t1+t2": 0.9}, "b": {"t2": 0.4, "t1": 0.6, "t1+t2": 1.0}}
    table = summarise(scores(dice), GLIOMA)
    pick = {"region": "WT", "metric": "dice"}

    assert find(table, scope="subset", name="t2", **pick)["mean"] == pytest.approx(0.3)
    assert find(table, scope="size", name="1", **pick)["mean"] == pytest.approx(0.4)
    assert find(table, scope="overall", name="all", **pick)["mean"] == pytest.approx((0.3 + 0.5 + 0.95) / 3)


def test_drop_is_the_difference_from_all_sequences(scores, find):
    table = summarise(
        scores({"a": {"flair": 0.5, GLIOMA.full_name: 0.9}, "b": {"flair": 0.7, GLIOMA.full_name: 0.8}}), GLIOMA
    )
    row = find(table, scope="subset", name="flair", region="ET", metric="dice")

    assert row["drop"] == pytest.approx(-0.25)
    assert row["drop_low"] <= row["drop"] <= row["drop_high"]


def test_seeds_are_averaged_per_case_and_not_counted_as_cases(scores, find):
    dice = {"a": {"t2": 0.2}, "b": {"t2": 0.4}}
    other = {"a": {"t2": 0.4}, "b": {"t2": 0.6}}
    row = find(
        summarise(pd.concat([scores(dice), scores(other, seed=1)]), GLIOMA), scope="subset", region="WT", metric="dice"
    )

    assert (row["cases"], row["seeds"], row["mean"]) == (2, 2, pytest.approx(0.4))
    assert row["model_hash"] == "m0,m1"


def test_cases_without_a_score_are_left_out_and_empties_are_counted(scores, find):
    dice = {"a": {"t2": 0.2}, "b": {"t2": np.nan}, "c": {"t2": 0.4}}
    row = find(summarise(scores(dice, empty="prediction"), GLIOMA), scope="subset", region="WT", metric="dice")

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

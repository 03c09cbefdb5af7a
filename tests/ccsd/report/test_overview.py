"""Experiments side by side: what the table, the sentences and the text say."""

import numpy as np
import pandas as pd
import pytest

from ccsd.report.charts import by_experiment
from ccsd.report.sentences import overview_text, verdicts
from ccsd.report.statistics import compare, summarise
from ccsd.report.tables import drop_table, overview
from support.tasks import GLIOMA


@pytest.fixture
def tables(scores):
    """Return the scores of three experiments: `good` is far better than `bad` and hardly better than `even`."""
    rng = np.random.default_rng(0)
    parts = []
    for name, gain, spread in (("bad", -0.2, 0.01), ("even", 0.0, 0.05), ("good", 0.004, 0.05)):
        for seed in (0, 1):
            dice = {
                f"c{i}": {s: 0.6 + gain + 0.01 * i + rng.normal(0, spread) for s in ("t1", "t2", "t1+t2")}
                for i in range(10)
            }
            parts.append(scores(dice, name, seed))
    metrics = pd.concat(parts)
    return metrics, summarise(metrics, GLIOMA), compare(metrics, GLIOMA)


def test_overview_has_every_experiment_for_every_number_of_sequences(tables):
    lines = overview(tables[1], GLIOMA)

    assert [(line.sequences, line.experiment) for line in lines] == [
        (name, experiment)
        for name in ("1 sequence", "2 sequences", "all combinations")
        for experiment in ("bad", "even", "good")
    ]
    assert {line.seeds for line in lines} == {2}
    assert [line.first for line in lines] == [True, False, False] * 3
    for start in (0, 3, 6):
        means = [line.regions["WT"]["mean"] for line in lines[start : start + 3]]
        assert ["WT" in line.best for line in lines[start : start + 3]] == [mean == max(means) for mean in means]


def test_the_chart_has_a_thin_line_for_each_of_several_seeds(tables):
    metrics = tables[0].assign(modalities=tables[0]["subset"].str.count(r"\+") + 1)
    single = metrics[metrics["seed"] == 0]
    thin = "stroke-width: 0.7"

    assert str(by_experiment(tables[1], metrics, GLIOMA)).count(thin) == 3 * 3 * 2  # regions, experiments, seeds
    assert thin not in str(by_experiment(summarise(single, GLIOMA), single, GLIOMA))


def test_sentences_say_what_is_clear_and_what_is_not(tables):
    metrics, summary, comparison = tables
    sentence = next(verdicts(summary, comparison, GLIOMA))
    best = max(("even", "good"), key=lambda name: metrics.loc[metrics["experiment"] == name, "dice"].mean())
    row = comparison.query("scope == 'overall' and metric == 'dice' and region == 'WT' and experiment == @best").iloc[0]

    assert f"{best} segments the whole tumour best" in sentence
    assert (
        f"clearly better than bad by {row['difference']:.3f} ({row['low']:.3f} to {row['high']:.3f}; by seed"
        in sentence
    )
    assert "not clearly better than" in sentence.split("bad by")[1]


def test_sentences_are_the_same_whichever_experiment_comes_first(tables):
    metrics, summary, comparison = tables
    turned = metrics.iloc[::-1]
    there = list(verdicts(summary, comparison, GLIOMA))
    back = list(verdicts(summarise(turned, GLIOMA), compare(turned, GLIOMA), GLIOMA))

    assert [set(text.replace(";", ",").split()) for text in there] == [set(t.replace(";", ",").split()) for t in back]


@pytest.mark.parametrize(("cases", "clear"), [(5, False), (6, True)])
def test_few_cases_make_nothing_clear(scores, cases, clear):
    names = [f"c{i}" for i in range(cases)]
    parts = [scores({n: {"t1": 0.5} for n in names}, "base"), scores({n: {"t1": 0.6} for n in names}, "new")]
    metrics = pd.concat(parts)
    sentence = next(verdicts(summarise(metrics, GLIOMA), compare(metrics, GLIOMA), GLIOMA))

    assert ("not clearly better" not in sentence) == clear
    assert (
        "*" in overview_text(summarise(metrics, GLIOMA), compare(metrics, GLIOMA), GLIOMA).split("cases  WT")[1]
    ) == clear


@pytest.mark.parametrize(("second", "words"), [(0.50, True), (0.58, False)])
def test_sentences_say_when_seeds_overlap(scores, second, words):
    base = {name: {"t1": dice} for name, dice in (("a", 0.5), ("b", 0.52))}
    shifted = {name: {"t1": row["t1"] + 0.1} for name, row in base.items()}
    other = {name: {"t1": second} for name in base}
    metrics = pd.concat([scores(base, "base"), scores(shifted, "new"), scores(other, "new", seed=1)])
    sentence = next(verdicts(summarise(metrics, GLIOMA), compare(metrics, GLIOMA), GLIOMA))

    assert ("seeds overlap" in sentence) == words


def test_experiments_without_a_case_in_common_are_not_judged(scores):
    metrics = pd.concat([scores({"a": {"t1": 0.5}}, "x"), scores({"b": {"t1": 0.6}}, "y")])

    assert list(verdicts(summarise(metrics, GLIOMA), compare(metrics, GLIOMA), GLIOMA)) == []
    assert "nan" not in overview_text(summarise(metrics, GLIOMA), compare(metrics, GLIOMA), GLIOMA)


def test_text_has_the_numbers_of_the_tables(tables):
    _, summary, comparison = tables
    text = overview_text(summary, comparison, GLIOMA)
    mean = summary.query("experiment == 'good' and scope == 'overall' and region == 'ET' and metric == 'dice'").iloc[0]
    gap = comparison.query(
        "experiment == 'good' and baseline == 'bad' and scope == 'overall' and region == 'WT' and metric == 'dice'"
    ).iloc[0]

    assert f"{mean['mean']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})" in text
    assert f"{gap['difference']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f}) *" in text
    assert "good - even" in text
    assert max(len(line) for line in text.splitlines()) < 120


def test_text_of_a_single_experiment_compares_nothing(scores):
    metrics = scores({"a": {"unknown": 0.5}, "b": {"unknown": 0.7}}).assign(seed=pd.NA)

    text = overview_text(summarise(metrics, GLIOMA), compare(metrics, GLIOMA), GLIOMA)
    assert "0.600" in text
    assert "Differences" not in text


def test_a_negligible_drop_has_no_minus_sign(scores):
    summary = summarise(scores({"c": {"flair+t1+t1ce+t2": 0.8, "flair+t1+t1ce": 0.7999}}), GLIOMA)

    assert {cell.text for _, cells in drop_table(summary, "ccsd", GLIOMA) for cell in cells} == {"+0.000"}

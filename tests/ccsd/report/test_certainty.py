"""When a difference is called clear: the cases and the seeds must agree; folds are neither."""

from dataclasses import replace

import pandas as pd
import pytest

from ccsd.report.cautions import warnings
from ccsd.report.certainty import certainty, comparable
from ccsd.report.results import read_results
from ccsd.report.sentences import best_experiment, overview_text, summary_sentences, verdicts
from ccsd.report.statistics import compare, summarise
from ccsd.report.tables import difference_rows
from preprocess.folds import Folds
from support.tasks import GLIOMA


@pytest.fixture
def experiment(scores):
    """Return a function that makes an experiment of eight cases from the level of each seed."""

    def make(name, *levels, spread=0.01):
        cases = [f"c{i}" for i in range(8)]
        tables = [
            scores({case: {"t1": level + spread * i} for i, case in enumerate(cases)}, name, seed)
            for seed, level in enumerate(levels)
        ]
        return pd.concat(tables)

    return make


def judged(metrics):
    """Return summary, comparison and the first verdict."""
    summary, comparison = summarise(metrics, GLIOMA), compare(metrics, GLIOMA)
    return summary, comparison, next(verdicts(summary, comparison, GLIOMA))


def row_of(metrics, find):
    return row_in(compare(metrics, GLIOMA), find)


def row_in(comparison, find):
    return find(comparison, scope="overall", region="WT", metric="dice")


CASES = {
    "all seeds agree": ((0.5, 0.52), (0.6, 0.63), "clear", "old by 0.105 (0.105 to 0.105; by seed 0.080 to 0.130)"),
    "seeds overlap": ((0.5, 0.62), (0.6, 0.63), "unclear", "; by seed -0.020 to 0.130, though their seeds overlap)"),
    "one seed each": ((0.5,), (0.6,), "one seed", "old by 0.100 (0.100 to 0.100), with other seeds not tried"),
    "one seed of one": ((0.5,), (0.6, 0.63), "one seed", "; by seed 0.100 to 0.130), with other seeds not tried"),
    "one seed among others": ((0.5, 0.61), (0.6,), "unclear", "; by seed -0.010 to 0.100, though their seeds overlap)"),
}
BEGINS = {
    "clear": "clearly better than old",
    "one seed": "better for these cases than old",
    "unclear": "not clearly better than old",
}


@pytest.mark.parametrize("kind", CASES)
def test_cases_and_seeds_decide_together(experiment, find, kind):
    old, new, expected, words = CASES[kind]
    metrics = pd.concat([experiment("old", *old), experiment("new", *new)])
    summary, comparison, sentence = judged(metrics)
    row = row_in(comparison, find)
    assert (row["seeds_low"], row["seeds_high"]) == pytest.approx((min(new) - max(old), max(new) - min(old)))
    assert certainty(row) == expected
    assert f": {BEGINS[expected]} by " in sentence
    assert words in sentence

    _, turned, sentence = judged(pd.concat([experiment("new", *new), experiment("old", *old)]))
    assert certainty(row_in(turned, find)) == expected
    assert words in sentence
    mark = {"clear": " *", "one seed": " (*)", "unclear": ""}[expected]
    text = overview_text(summary, comparison, GLIOMA)
    assert f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}){mark} " in text
    assert ("  by seed " in text) == (len(old) + len(new) > 2)
    (_, (gap, *_)), *_ = difference_rows(comparison, GLIOMA, "overall")
    assert (gap.mark, bool(gap.seeds)) == (mark.strip(), len(old) + len(new) > 2)


def test_cases_alone_make_nothing_clear_when_they_disagree(experiment, scores, find):
    old = experiment("old", 0.5, 0.5)
    new = pd.concat([scores({f"c{i}": {"t1": 0.5 + 0.01 * i + (0.3 if i == 0 else -0.02)} for i in range(8)}, "new", s)
                     for s in (0, 1)])  # fmt: skip
    row = row_of(pd.concat([old, new]), find)
    assert row["seeds_low"] > 0
    assert row["low"] < 0
    assert certainty(row) == "unclear"


def test_seeds_are_compared_on_the_cases_that_both_have(scores, find):
    """A seed that lacks hard cases is no better for it."""
    hard = {"a": {"t1": 0.1}, "b": {"t1": 0.9}}
    metrics = pd.concat([
        scores(hard, "old", 0), scores(hard, "old", 1),
        scores({"a": {"t1": 0.2}, "b": {"t1": 1.0}}, "new", 0), scores({"b": {"t1": 1.0}}, "new", 1),
    ])  # fmt: skip
    row = row_of(metrics, find)
    assert (row["seeds_low"], row["seeds_high"]) == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize(("only", "counted"), [("c0", 1), ("c0 c1 c2 c3 c4 c5 c6 c7", 2)])
def test_a_seed_that_lacks_cases_makes_nothing_clear(experiment, find, only, counted):
    new = experiment("new", 0.6, 0.61)
    metrics = pd.concat([experiment("old", 0.5, 0.51), new[(new["seed"] == 0) | new["case"].isin(only.split())]])
    row = row_of(metrics, find)
    assert (row["seeds"], row["baseline_seeds"]) == (counted, 2)
    assert certainty(row) == {1: "one seed", 2: "clear"}[counted]


def test_seeds_that_share_out_the_cases_count_as_one(experiment, find):
    new = experiment("new", 0.6).assign(seed=lambda table: table["case"].isin(["c0", "c1"]).astype(int))
    row = row_of(pd.concat([experiment("old", 0.5, 0.51), new]), find)
    assert (row["seeds"], row["baseline_seeds"]) == (1, 2)
    assert (row["seeds_low"], row["seeds_high"]) == pytest.approx((0.09, 0.1))
    assert certainty(row) == "one seed"


@pytest.fixture
def folds(scores):
    """Return an experiment of two folds with two seeds, and an ensemble on other cases."""
    level = {"a": 0.3, "b": 0.5, "c": 0.7, "d": 0.9}
    parts = [
        scores({case: {"t1": level[case] + seed / 10} for case in cases}, "ccsd", seed).assign(
            fold=fold, model_hash=f"m{fold}{seed}"
        )
        for fold, cases in ((0, "ab"), (1, "cd"))
        for seed in (0, 1)
    ]
    together = scores({"x": {"t1": 0.99}}, "ccsd-f0+1-s0+1").assign(seed=pd.NA, model_hash="all")
    return pd.concat([*parts, together]).astype({"seed": "Int64", "fold": "Int64"})


def test_what_the_folds_hold_out_is_pooled(folds, find):
    row = find(summarise(folds, GLIOMA), experiment="ccsd", scope="overall", region="WT", metric="dice")
    assert (row["cases"], row["seeds"]) == (4, 2)
    assert row["mean"] == pytest.approx(0.65)
    assert row["low"] < 0.65 < row["high"]


def test_a_report_of_folds_says_what_they_are(folds, study):
    found = replace(read_results(study), metrics=folds)
    (study / "data" / "split.tsv").write_text(
        Folds(dict(zip("abcd", (0, 0, 1, 1), strict=True)), {}, ("x",), GLIOMA.label).as_tsv()
    )
    summary, comparison = summarise(folds, GLIOMA), compare(folds, GLIOMA)
    said = warnings(found, summary, comparison)
    assert not any("different models under one seed" in text or "different splits" in text for text in said)
    assert not any("was not scored in" in text for text in said)
    assert "Experiments without a case in common cannot be compared: ccsd | ccsd-f0+1-s0+1." in said
    assert best_experiment(summary, folds) == "ccsd"  # not what has a single, easy case
    sentences = summary_sentences(found, summary, "ccsd")
    assert "Each of 4 of them was held out by one of the folds 0 and 1 and scored only with models of that fold." in (
        sentences
    )
    theirs = pd.concat([folds, folds[folds["seed"] == 0].assign(experiment="theirs", seed=pd.NA, model_hash=None)])
    said = warnings(replace(found, metrics=theirs), summary, comparison)
    assert any(text.startswith("The label maps of theirs come from elsewhere") for text in said)
    only = theirs[theirs["experiment"] == "theirs"]
    assert not any("held out by" in text for text in summary_sentences(replace(found, metrics=only), summary, "ccsd"))
    assert list(verdicts(summary, comparison, GLIOMA)) == []
    assert "ccsd-f0+1-s0+1 - ccsd" not in overview_text(summary, comparison, GLIOMA)

    one = folds[folds["fold"] == 0]
    said = warnings(replace(found, metrics=one), summarise(one, GLIOMA), compare(one, GLIOMA))
    assert "ccsd was not scored in fold 1: its means lack the cases held out there." in said
    mixed = pd.concat([folds, folds[folds["fold"] == 0].assign(case="z", model_hash="another")])
    said = warnings(replace(found, metrics=mixed), summarise(mixed, GLIOMA), compare(mixed, GLIOMA))
    assert "Experiment ccsd has scores of different models under one seed; evaluate it again." in said


def test_experiments_are_judged_among_those_that_share_cases(experiment, scores):
    other = [scores({f"x{i}": {"t1": level} for i in range(8)}, name) for name, level in (("p", 0.9), ("q", 0.8))]
    metrics = pd.concat([experiment("old", 0.5), experiment("new", 0.6), *other])
    said = list(verdicts(summarise(metrics, GLIOMA), compare(metrics, GLIOMA), GLIOMA))
    assert said[0].startswith("Of old and new, averaged over all combinations, new segments the whole tumour best")
    assert said[1].startswith("Of p and q, averaged over all combinations, p segments the whole tumour best")
    assert len(said) == 2 * len(GLIOMA.scored_regions)


def test_the_best_is_so_on_the_cases_that_both_have(experiment, scores, study):
    """Easy cases that the other lacks make no experiment better."""
    old = experiment("old", 0.5, 0.5)
    easy = [scores({f"x{i}": {"t1": 0.95} for i in range(8)}, "old", seed) for seed in (0, 1)]
    metrics = pd.concat([old, *easy, experiment("new", 0.6, 0.6)])
    summary, comparison, sentence = judged(metrics)
    assert "new segments the whole tumour best" in sentence
    assert "with a mean Dice of 0.635: clearly better than old by 0.100 (0.100 to 0.100;" in sentence
    said = warnings(replace(read_results(study), metrics=metrics), summary, comparison)
    assert [text for text in said if text.startswith("old and new were not scored on the same cases")]
    metrics = pd.concat([old, experiment("new", 0.6, 0.6)])
    said = warnings(replace(read_results(study), metrics=metrics), *(f(metrics, GLIOMA) for f in (summarise, compare)))
    assert not any("not scored on the same cases" in text for text in said)


def test_what_is_worse_is_never_called_better(experiment, scores):
    """Each of three beats another on the cases that both have, so that none is best on all."""

    def of(name, **levels):
        cases = {f"{group}{i}": {"t1": level} for group, level in levels.items() for i in range(8)}
        return [scores(cases, name, seed) for seed in (0, 1)]

    metrics = pd.concat([*of("a", x=0.6, z=0.5), *of("b", x=0.5, y=0.6), *of("c", y=0.5, z=0.7)])
    _, _, sentence = judged(metrics)
    assert ": clearly better than a by 0.200 " in sentence
    assert "; not clearly better than b by -0.100 " in sentence


def test_groups_are_joined_by_any_shared_case():
    assert comparable(list("abcde"), [("d", "a"), ("c", "e"), ("d", "c")]) == [["a", "c", "d", "e"], ["b"]]


def test_tables_of_before_there_were_folds_are_read(study):
    path = study / "evaluation" / "ccsd-s0" / "all" / "metrics.tsv"
    table = pd.read_csv(path, sep="\t", dtype=str)
    table.drop(columns="fold").to_csv(path, sep="\t", index=False)
    metrics = read_results(study).metrics
    assert metrics["fold"].isna().all()
    assert list(metrics.columns) == list(table.columns)

"""The report of a study with an ensemble: an experiment beside the seeds it is made of."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ccsd.evaluation.run import evaluate_model
from ccsd.report.cautions import warnings
from ccsd.report.page import write_report
from ccsd.report.results import outdated_evaluations, read_results
from ccsd.report.sentences import verdicts
from ccsd.report.statistics import compare, summarise
from ccsd.report.tables import seed_means
from support.tasks import GLIOMA

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def page(study: Path, make_run: Callable[..., Path], add_experiment: Callable[..., None]) -> str:
    """Return the page of a study with three seeds and the ensemble of two models."""
    for seed in (1, 2):
        add_experiment(study, "ccsd", 0.9, seed)
    runs = [study / "runs" / "ccsd-s0", make_run("ccsd-s1", seed=1)]
    evaluate_model(runs, study / "data", study / "evaluation" / "ccsd-s0+1" / "all")
    return write_report(study).page.read_text()


@pytest.mark.slow
def test_an_ensemble_has_tables_pictures_and_all_its_models(page: str) -> None:
    assert "2 experiments (ccsd, ccsd-s0+1)" in page
    assert "mean of ccsd seed 0 <code>" in page
    assert ", ccsd seed 1 <code>" in page
    assert "Nothing to show for" not in page
    assert "only one seed" not in page
    assert "different models under one seed" not in page


def test_two_ensembles_under_one_name_are_told(scores: Callable[..., pd.DataFrame], study: Path) -> None:
    found = read_results(study)
    for hashes, told in ((("m", "m"), False), (("m", "n"), True)):
        parts = [
            scores({"a": {subset: 0.5}}, experiment="ccsd-s0+1").assign(seed=pd.NA, model_hash=model_hash)
            for subset, model_hash in zip(("t1", "t2"), hashes, strict=True)
        ]
        metrics = pd.concat(parts)
        said = warnings(replace(found, metrics=metrics), summarise(metrics, GLIOMA), compare(metrics, GLIOMA))
        assert any("ccsd-s0+1 has scores of different models" in text for text in said) is told


@pytest.mark.slow
@pytest.mark.parametrize("evaluation", ["ccsd-s0/all", "ccsd-s0+1/all"])
def test_scores_of_weights_that_were_trained_again_are_told(
    study: Path, make_run: Callable[..., Path], evaluation: str
) -> None:
    first, second = study / "runs" / "ccsd-s0", make_run("ccsd-s1", seed=1)
    if "+" in evaluation:
        shutil.rmtree(study / "evaluation")
        evaluate_model([first, second], study / "data", study / "evaluation" / evaluation)
    found = read_results(study)
    assert outdated_evaluations(found) == []
    other_fold = {"config": {"split": {"fold": 1}, "train": {"seed": 0}}, "model_hash": "of another fold"}
    folds = [replace(run, record=run.record.model_copy(update=other_fold)) for run in found.trainings if run.record]
    assert outdated_evaluations(replace(found, trainings=folds)) == []  # other folds do not matter
    assert not any(
        "current weights of the runs" in text
        for text in warnings(found, summarise(found.metrics, GLIOMA), compare(found.metrics, GLIOMA))
    )

    record = json.loads((first / "run.json").read_text())
    (first / "run.json").write_text(json.dumps({**record, "model_hash": "of another training"}))
    found = read_results(study)
    assert outdated_evaluations(found) == [evaluation]
    (said,) = [
        text
        for text in warnings(found, summarise(found.metrics, GLIOMA), compare(found.metrics, GLIOMA))
        if "current weights of the runs" in text
    ]
    assert evaluation in said


def test_scores_of_a_version_that_painted_outside_the_brain_are_reported(study: Path) -> None:
    path = study / "evaluation" / "ccsd-s0" / "all" / "evaluation.json"
    for earlier in (False, True):
        if earlier:
            record = json.loads(path.read_text())
            del record["identity"]["painted"]
            path.write_text(json.dumps(record))
        found = read_results(study)
        said = warnings(found, summarise(found.metrics, GLIOMA), compare(found.metrics, GLIOMA))
        assert any("ccsd-s0/all come from an earlier version" in text for text in said) is earlier


def test_an_ensemble_that_is_best_is_compared_with_the_seeds_of_others(scores: Callable[..., pd.DataFrame]) -> None:
    def of(level: float) -> dict[str, dict[str, float]]:
        return {f"c{case}": {"t1": level + case / 100} for case in range(8)}

    seeds = [scores(of(0.5 + seed / 10), seed=seed) for seed in range(3)]
    for level, words in ((0.9, ""), (0.68, "though their seeds overlap")):
        together = scores(of(level), experiment="ccsd-s0+1+2").assign(seed=pd.NA, model_hash="m")
        metrics = pd.concat([*seeds, together])
        found = seed_means(metrics, GLIOMA)
        assert found["ccsd-s0+1+2"]["WT"] == [pytest.approx(level + 0.035)]
        sentence = next(verdicts(summarise(metrics, GLIOMA), compare(metrics, GLIOMA), GLIOMA))
        assert "ccsd-s0+1+2 segments the whole tumour best" in sentence
        assert ("though their seeds overlap" in sentence) == bool(words)


def test_scores_without_a_model_are_compared_with_three_seeds(scores: Callable[..., pd.DataFrame]) -> None:
    cases = {f"c{case}": {"t1": 0.5 + case / 100} for case in range(8)}
    others = scores({case: {"t1": 0.9} for case in cases}, experiment="theirs").assign(seed=pd.NA, model_hash=pd.NA)
    metrics = pd.concat([*(scores(cases, seed=seed) for seed in range(3)), others])
    found = seed_means(metrics, GLIOMA)
    assert list(found) == ["ccsd"]
    sentence = next(verdicts(summarise(metrics, GLIOMA), compare(metrics, GLIOMA), GLIOMA))
    assert "theirs segments the whole tumour best" in sentence

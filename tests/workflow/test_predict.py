"""New cases as jobs of the workflow, and ensembles of seeds. A stand-in writes each stage's files."""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from ccsd.evaluation import read_metrics
from ccsd.evaluation.run import evaluate_model
from ccsd.inference.calibrated import read_calibration
from ccsd.inference.ensemble import read_members
from preprocess.dataset import read_fingerprint
from support.projects import HERE, ONE_RANK, TINY, Project

NEW = {"source": "new", "cases_per_job": 2, "models": ["ccsd-s1", "ccsd-s0+1"], "cleanup": True, "allow": ["affine"]}
STUDY = {"phantom": {"cases": 3}, "seeds": [0, 1], "ensembles": True, "predict": NEW}


def _add_case(clone: Project, name: str) -> None:
    (clone.folder / "new" / name).mkdir(parents=True)
    (clone.folder / "new" / name / f"{name}_t1.nii.gz").touch()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a study that ran to its end, with five new cases; tests work on copies of it."""
    clone = Project(tmp_path_factory.mktemp("original") / "clone")
    clone.configure(**STUDY)
    for number in range(5):
        _add_case(clone, f"P{number}")
    done = clone.snakemake(*HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The segmentations of 5 new cases are in" in done.stdout + done.stderr
    return clone


@pytest.fixture
def finished(original: Project, tmp_path: Path) -> Project:
    return original.copy(tmp_path / "clone")


def _options(call: str, name: str) -> list[str]:
    return [after for word, after in pairwise(shlex.split(call)) if word == name]


def _again(clone: Project, *arguments: str) -> list[str]:
    """Run Snakemake once more and return what it called."""
    clone.forget_calls()
    done = clone.snakemake(*HERE, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return clone.calls()


def test_each_part_of_the_new_cases_is_a_job_of_each_model(original: Project) -> None:
    calls = original.calls("predict")
    assert len(calls) == 2 * 3
    runs, root = [f"results/study/runs/ccsd-s{seed}" for seed in (0, 1)], "results/study/predictions"
    for out, models in ((f"{root}/ccsd-s1", runs[1:]), (f"{root}/ccsd-s0+1", runs)):
        mine = [call for call in calls if call.startswith(f"predict new {out} ")]
        assert {part for call in mine for part in _options(call, "--part")} == {"1/3", "2/3", "3/3"}
        assert all(_options(call, "--model") == models for call in mine)
        assert all("--skip-existing" in call and "--cleanup" in call for call in mine)
        assert all(_options(call, "--allow") == ["affine"] for call in mine)
        assert all(_options(call, "--overlap") == ["0.5"] for call in mine)


def test_an_ensemble_is_scored_as_an_experiment_of_its_own(original: Project) -> None:
    calls = original.calls("evaluate")
    assert len(calls) == 3
    (together,) = [call for call in calls if len(_options(call, "--model")) > 1]
    assert _options(together, "--model") == ["results/study/runs/ccsd-s0", "results/study/runs/ccsd-s1"]
    assert _options(together, "--out") == ["results/study/evaluation/ccsd-s0+1/part-1-of-1"]


@pytest.mark.slow
def test_typed_again_nothing_runs_and_what_is_gone_or_new_is_made(finished: Project) -> None:
    assert _again(finished) == []
    (finished.results / "predictions" / "ccsd-s0+1" / "P4.nii.gz").unlink()
    (call,) = _again(finished)
    assert call.startswith("predict new results/study/predictions/ccsd-s0+1 --part 3/3 ")
    _add_case(finished, "P5")
    calls = _again(finished)
    assert len(calls) == 2 * 3
    assert {call.split()[0] for call in calls} == {"predict"}


@pytest.mark.slow
def test_models_are_calibrated_where_that_is_asked_for_before_they_segment(finished: Project) -> None:
    assert finished.calls("calibrate") == []
    finished.configure(**STUDY, evaluation={"calibrate": True, "overlap": 0.25})
    calls = [call for call in _again(finished) if call.split()[0] in ("calibrate", "predict", "report")]
    runs = [f"results/study/runs/ccsd-s{seed}" for seed in (0, 1)]
    asked = {call for call in calls if call.startswith("calibrate")}
    how = "--set evaluation.overlap=0.25 --set evaluation.flips=false --data results/study/data"
    assert asked == {f"calibrate {' '.join(models)} {how}" for models in (runs[:1], runs[1:], runs)}
    of_both = calls.index(f"calibrate {' '.join(runs)} {how}")
    assert all(calls.index(c) > of_both for c in calls if c.startswith("predict") and all(run in c for run in runs))
    assert _again(finished) == []
    done = finished.snakemake(*HERE, "--config", "split={val: 0}", "--dry-run")
    assert done.returncode == 1
    assert "evaluation.calibrate needs validation cases, and split.val is 0" in done.stdout + done.stderr


def test_a_model_that_there_is_not_is_rejected_before_anything_runs(original: Project) -> None:
    done = original.snakemake(*HERE, "--config", "predict={source: new, models: [ccsd-s2]}", "--dry-run")
    assert done.returncode == 1
    assert "no model 'ccsd-s2'; allowed: ccsd-s0, ccsd-s1, or several seeds" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_real_stages_score_an_ensemble_and_segment_new_cases(project: Callable[..., Project], tmp_path: Path) -> None:
    clone = project(stand_in=False)
    new = {"source": "results/study/phantoms", "cases_per_job": 4, "models": ["ccsd-s0+1"]}
    study = {**TINY, "train": {**TINY["train"], "steps": 4, "validate_every": 4}, "seeds": [0, 1], "ensembles": True}
    clone.configure(**study)
    assert clone.snakemake(*HERE, *ONE_RANK).returncode == 0
    clone.configure(**{**study, "evaluation": {**study["evaluation"], "calibrate": True}}, predict=new)
    done = clone.snakemake(*HERE, *ONE_RANK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule evaluate" not in done.stdout + done.stderr  # `predict` decides no score, nor does `calibrate`

    table = read_metrics(clone.results / "metrics.tsv")
    assert list(table["experiment"].unique()) == ["ccsd", "ccsd-s0+1"]
    runs = [clone.results / "runs" / f"ccsd-s{seed}" for seed in (0, 1)]
    by_hand = evaluate_model(runs, clone.results / "data", tmp_path / "by-hand", ["t1ce"])
    assert by_hand is not None
    scored = clone.results / "evaluation" / "ccsd-s0+1" / "part-1-of-1" / "metrics.tsv"
    pd.testing.assert_frame_equal(read_metrics(by_hand), read_metrics(scored))
    made = clone.results / "predictions" / "ccsd-s0+1"
    assert len(list(made.glob("*.nii.gz"))) == 6
    seeds = {tuple(m["seed"] for m in json.loads(path.read_text())["models"]) for path in made.glob("*.json")}
    assert seeds == {(0, 1)}
    assert "ccsd-s0+1" in (clone.results / "report.html").read_text()

    for models in (runs[:1], runs[1:], runs):
        calibration = read_calibration(read_members(models))
        assert calibration is not None
        assert calibration.data_hash == read_fingerprint(clone.results / "data")["data_hash"]
    known = {curve.region for curve in calibration.curves if curve.sequences == 4}
    for path in made.glob("*.json"):
        record = json.loads(path.read_text())
        painted = {region for region, sure in record["confidence"].items() if sure is not None}
        assert set(record.get("expected_dice", ())) == painted & known


COUNTED = '#!/bin/bash\necho "$*" >> "{folder}/sbatch-calls.txt"\nexec {program} "$@"\n'


@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_a_folder_of_cases_is_one_job_array(project: Callable[..., Project], slurm: Path) -> None:
    clone = project()
    clone.environment["PATH"] = f"{clone.folder / 'bin'}:{os.environ['PATH']}"  # with the commands of the cluster
    counting = clone.folder / "bin" / "sbatch"
    counting.write_text(COUNTED.format(folder=clone.folder, program=shutil.which("sbatch")))
    counting.chmod(0o755)
    clone.configure(**{**STUDY, "predict": {**NEW, "models": ["ccsd-s0+1"]}})
    for number in range(5):
        _add_case(clone, f"P{number}")
    assert clone.snakemake(*HERE, "--until", "train").returncode == 0
    done = clone.snakemake(
        "--profile", "slurm", "--configfile", "study.yaml", "--slurm-array-jobs", "predict", "--until", "predict",
        "--max-status-checks-per-second", "1", "--seconds-between-status-checks", "1",
        "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10",
        "--set-resources", "train:tasks_per_node=1", "train:gpus_per_node=0", "predict:slurm_partition=gpu",
        "predict:gpu=1", "predict:mem_mb=1000", "evaluate:mem_mb=1000", "convert:mem_mb=1000",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert {part for call in clone.calls("predict") for part in _options(call, "--part")} == {"1/3", "2/3", "3/3"}
    submitted = (clone.folder / "sbatch-calls.txt").read_text().splitlines()
    (array,) = [line for line in submitted if "predict" in line and "--test-only" not in line]
    assert "--array" in array

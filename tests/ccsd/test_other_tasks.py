"""Tasks of one, two and five sequences, with a fourth region and with scored ones: from phantoms to the report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from ccsd.evaluation.tables import read_metrics, scoring_label
from ccsd.inference.export import export
from ccsd.records import EvaluationRecord, RunRecord
from ccsd.report import write_report
from ccsd.study import split_for
from preprocess.errors import InputError
from preprocess.phantom.cohort import case_names
from preprocess.source import nifti
from preprocess.task import Task, shipped_tasks
from support import ROOT
from support.forked import run_forked
from support.processes import ccsd_here
from support.tasks import FIVE, FOURTH, ONE, TWO, changed

pytestmark = pytest.mark.slow
CHOSEN = {task.name: task for task in (ONE, FOURTH, TWO, FIVE, shipped_tasks()["brats-ped"])}
Studies = Callable[[str], Path]


def commands(task: Task, root: Path) -> list[list[str]]:
    """Return the commands of a study in `root`, the last one a prediction from one sequence."""
    config, run, data, phantoms = (str(root / name) for name in ("config.yaml", "runs/ccsd-s0", "data", "phantoms"))
    named = task.name if task.name in shipped_tasks() else str(root / "task.yaml")
    case = str(root / "phantoms" / case_names(4, task)[0])
    return [
        ["phantom", phantoms, "--cases", "4", "--size", "32", "--task", named],
        ["convert", phantoms, data, "--task", named],
        ["split", data, "--train", "0.5", "--val", "0.25"],
        ["train", "--config", config, "--data", data, "--run", run],
        ["evaluate", "--model", run, "--data", data, "--out", str(root / "evaluation/ccsd-s0/all")],
        ["report", str(root)],
        ["predict", case, str(root / "predicted.nii.gz"), "--model", run, "-m", task.modalities[-1]],
    ]


@pytest.fixture(scope="module")
def study_of(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    """Return a function that returns the study of a task; all are created at once."""
    made = {name: tmp_path_factory.mktemp(name) for name in CHOSEN}
    run_forked([prepared(task, made[name]) for name, task in CHOSEN.items()], ROOT)
    return made.__getitem__


def prepared(task: Task, root: Path) -> list[list[str]]:
    (root / "task.yaml").write_text(yaml.safe_dump(task.model_dump(mode="json"), sort_keys=False))
    (root / "config.yaml").write_text(json.dumps(settings(task)))
    return commands(task, root)


def settings(task: Task) -> dict[str, object]:
    return {
        "name": "tiny",
        "phantom": {"cases": 4, "size": 32},
        "task": task.model_dump(mode="json"),
        "model": {"width": 4, "levels": 2},
        "train": {"steps": 2, "patch": [16, 16, 16], "precision": "fp32", "validate_every": 2},
        "runtime": {"workers": 0},
        "evaluation": {"overlap": 0},
    }


@pytest.mark.parametrize("name", CHOSEN)
def test_every_combination_and_region_is_scored(name: str, study_of: Studies) -> None:
    task, folder = CHOSEN[name], study_of(name) / "evaluation" / "ccsd-s0" / "all"
    table = read_metrics(folder / "metrics.tsv")
    assert list(dict.fromkeys(table["subset"])) == list(task.subset_names)
    assert len(task.subset_names) == 2 ** len(task.modalities) - 1
    assert list(dict.fromkeys(table["region"])) == list(task.scored_regions)
    assert set(table["task"]) == {scoring_label(task)}
    assert EvaluationRecord.read(folder).task == task
    record = RunRecord.read(study_of(name) / "runs" / "ccsd-s0")
    assert record.task == task.label
    assert record.settings(study_of(name)).task == task


@pytest.mark.parametrize("name", CHOSEN)
def test_the_page_knows_the_task(name: str, study_of: Studies) -> None:
    task, page = CHOSEN[name], (study_of(name) / "report.html").read_text()
    for shown in (*task.sequences.values(), *task.scored_regions, scoring_label(task)):
        assert shown in page
    assert ("By number of sequences" in page) == (len(task.modalities) > 1)


@pytest.mark.parametrize("name", CHOSEN)
def test_a_prediction_has_the_numbers_of_the_task(name: str, study_of: Studies) -> None:
    written = nifti.read(study_of(name) / "predicted.nii.gz").array
    assert set(written.ravel().tolist()) <= {0, *CHOSEN[name].default_convention.values}


@pytest.mark.parametrize("name", ["one", "five"])
def test_an_exported_program_takes_the_sequences_of_the_task(name: str, study_of: Studies, tmp_path: Path) -> None:
    task = CHOSEN[name]
    written = export(study_of(name) / "runs" / "ccsd-s0", tmp_path / "model.pt2", task.full_name)
    program = torch.export.load(written.path).module()
    assert program(torch.zeros(1, len(task.modalities), 16, 16, 16)).shape == (1, len(task.regions), 16, 16, 16)


def test_data_of_another_task_are_rejected_by_name(study_of: Studies, tmp_path: Path) -> None:
    data, other = study_of("one") / "data", study_of("fourth")
    for command in (
        ["train", "--config", other / "config.yaml", "--data", data, "--run", tmp_path / "run"],
        ["evaluate", "--model", other / "runs/ccsd-s0", "--data", data, "--out", tmp_path / "out"],
    ):
        done = ccsd_here(*command)
        assert done.returncode == 2
        assert "belongs to the task one, but" in done.stderr
        assert list(tmp_path.iterdir()) == []


def test_a_split_of_another_task_is_rejected_by_name(study_of: Studies, tmp_path: Path) -> None:
    shutil.copytree(study_of("one") / "data", tmp_path / "data")
    shutil.copy(study_of("fourth") / "data" / "split.tsv", tmp_path / "data")
    with pytest.raises(InputError, match=rf"belongs to the task {FOURTH.label}, but the run to {ONE.label}"):
        split_for(tmp_path / "data", "the run", ONE)


def test_one_report_has_one_task(study_of: Studies, tmp_path: Path) -> None:
    for name in ("one", "fourth"):
        shutil.copytree(study_of(name) / "evaluation", tmp_path / "evaluation" / name)
        (tmp_path / "evaluation" / name / "ccsd-s0" / "all").rename(tmp_path / "evaluation" / name / "all")
    with pytest.raises(InputError, match=r"one/all belongs to the task one, but .*fourth/all to fourth"):
        write_report(tmp_path)


def test_one_report_has_one_way_of_scoring(study_of: Studies, tmp_path: Path) -> None:
    for name in ("a-s0", "b-s0"):
        shutil.copytree(study_of("one") / "evaluation" / "ccsd-s0", tmp_path / "evaluation" / name)
    path = tmp_path / "evaluation" / "b-s0" / "all" / "evaluation.json"
    record = json.loads(path.read_text())
    record["task"]["lesions"]["dilation"] += 1
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"b-s0/all was scored by other rules of the task one \(one@"):
        write_report(tmp_path)


def test_a_model_is_scored_by_other_rules_of_its_task_but_by_no_other_task(study_of: Studies, tmp_path: Path) -> None:
    root = study_of("one")
    rules = changed(ONE, cleanup={"ET": {"below_mm3": 9, "becomes": "NCR"}})
    for task in (rules, FOURTH):
        (tmp_path / f"{task.name}.yaml").write_text(yaml.safe_dump(task.model_dump(mode="json"), sort_keys=False))
    evaluate = ("evaluate", "--model", root / "runs/ccsd-s0", "--data", root / "data", "--out", tmp_path / "out")
    assert ccsd_here(*evaluate, "--task", tmp_path / "one.yaml").returncode == 0
    table = read_metrics(tmp_path / "out" / "metrics.tsv")
    assert set(table["cleanup"]) == {"ET<9mm3:NCR"}
    assert set(table["task"]) == {scoring_label(rules)} != {scoring_label(ONE)}
    rejected = ccsd_here(*evaluate, "--task", tmp_path / "fourth.yaml")
    assert rejected.returncode == 2
    assert "--task belongs to the task fourth, but" in rejected.stderr

"""A study with folds, from its cases to the report, with a stand-in that writes each stage's files, or real stages."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from ccsd.evaluation import read_metrics
from preprocess.phantom.cohort import case_names
from preprocess.splits import read_split
from support.projects import HERE, ONE_RANK, TINY, Project
from support.tasks import GLIOMA


def _with_test_set(clone: Project, count: int) -> str:
    """Write a list of phantoms; the first two are for testing and in no fold."""
    rows = [f"{case}\t{'test' if number < 2 else 'train'}\n" for number, case in enumerate(case_names(count, GLIOMA))]
    (clone.folder / "list.tsv").write_text("case\tsplit\n" + "".join(rows))
    return "list.tsv"


def _settings(call: str) -> list[str]:
    words = call.split()
    return [after for word, after in pairwise(words) if word == "--set"]


@pytest.mark.slow
def test_each_fold_is_a_run_and_all_together_are_scored_where_none_was_trained(
    project: Callable[..., Project],
) -> None:
    clone = project()
    split = {"list": _with_test_set(clone, 5), "folds": 2}
    clone.configure(phantom={"cases": 5}, split=split, ensembles=True)
    done = clone.snakemake(*HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    (call,) = clone.calls("split")
    assert call.endswith("--seed 0 --val 0.1 --max-rejected 0.05 --folds 2 --list list.tsv")
    assert sorted(_settings(call) for call in clone.calls("train")) == [
        ["train.seed=0", f"split.fold={fold}"] for fold in (0, 1)
    ]
    outs = {call.split("--out ")[1].split()[0].split("/")[3] for call in clone.calls("evaluate")}
    assert outs == {"ccsd-f0-s0", "ccsd-f1-s0", "ccsd-f0+1-s0"}
    clone.forget_calls()
    assert clone.snakemake(*HERE).returncode == 0
    assert clone.calls() == []

    (clone.folder / "list.tsv").write_text("case\tsplit\n")
    done = clone.snakemake(*HERE, "--config", "folds=[2]", "--dry-run")
    assert done.returncode == 1
    assert "folds: no fold 2; there are 0, 1" in done.stdout + done.stderr


def test_folds_without_a_fixed_test_set_say_what_is_not_scored(project: Callable[..., Project]) -> None:
    clone = project()
    clone.configure(phantom={"cases": 5}, split={"folds": 2}, seeds=[0, 1], ensembles=True)
    done = clone.snakemake(*HERE, "--dry-run")
    assert done.returncode == 0
    assert done.stderr.count("note: the models of the folds are not scored together") == 1


@pytest.mark.slow
def test_real_folds_hold_out_every_case_once_and_one_fold_more_repeats_nothing(
    project: Callable[..., Project],
) -> None:
    clone = project(stand_in=False)
    study = {**TINY, "phantom": {"cases": 8, "size": 32}, "ensembles": True}
    study["split"] = {"list": _with_test_set(clone, 8), "folds": 2, "val": 0.2}
    study["train"] = {**study["train"], "steps": 4, "validate_every": 4}
    clone.configure(**study, folds=[0, 1])
    done = clone.snakemake(*HERE, *ONE_RANK, "--until", "train", "--config", "folds=[0]", "ensembles=false")
    assert done.returncode == 0, done.stdout + done.stderr
    first = clone.results / "runs" / "ccsd-f0-s0"
    before = (first / "model.safetensors").stat().st_mtime_ns
    done = clone.snakemake(*HERE, *ONE_RANK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (first / "model.safetensors").stat().st_mtime_ns == before

    splits = {}
    for fold in (0, 1):
        run = clone.results / "runs" / f"ccsd-f{fold}-s0"
        splits[fold] = read_split(run)
        record = json.loads((run / "run.json").read_text())
        assert record["split_hash"] == splits[fold].hash
        assert record["config"]["split"]["fold"] == fold
    fixed = set(case_names(8, GLIOMA)[:2])
    assert not fixed & {case for split in splits.values() for part in split.by_name.values() for case in part}
    table = read_metrics(clone.results / "metrics.tsv")
    assert list(table["experiment"].unique()) == ["ccsd", "ccsd-f0+1-s0"]
    pooled = table[table["experiment"] == "ccsd"].drop_duplicates(["case", "fold"])
    assert sorted(pooled["case"]) == sorted(case_names(8, GLIOMA)[2:])
    assert {case: splits[fold].test.count(case) for case, fold in zip(pooled["case"], pooled["fold"], strict=True)} == (
        dict.fromkeys(pooled["case"], 1)
    )
    assert set(table[table["experiment"] == "ccsd-f0+1-s0"]["case"]) == fixed
    summary = pd.read_csv(clone.results / "summary.tsv", sep="\t")
    overall = summary[(summary["scope"] == "overall") & (summary["metric"] == "dice") & (summary["region"] == "WT")]
    assert list(overall["cases"]) == [6, 2]
    page = (clone.results / "report.html").read_text()
    assert "was held out by one of the folds 0 and 1" in page
    assert "Experiments without a case in common cannot be compared: ccsd | ccsd-f0+1-s0." in page
    assert "different splits" not in page
    assert "different models under one seed" not in page
    assert "warning" not in Path(clone.results / "logs/evaluate/ccsd-f0+1-s0/part-1-of-1.log").read_text()

"""A study with folds: its runs and names, what is scored together, and which cases a model may be scored on."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ccsd.errors import UsageError
from ccsd.evaluation import read_metrics
from ccsd.evaluation.run import evaluate_model
from ccsd.new_cases import NewCases
from ccsd.runs import RunKey, ensemble_name, members, run_key
from ccsd.snakemake import fold_option, split_options
from ccsd.study import Study, split_for
from preprocess.errors import InputError
from preprocess.folds import Folds
from support.processes import ccsd_here
from support.tasks import GLIOMA

BASE = {"name": "s", "phantom": {"cases": 5}}
LISTED = {"fixed": "case\tfold\tsplit\na\t0\t\nb\t1\t\nc\t\ttest\n", "plain": "case\tfold\na\t3\nb\t5\n",
          "none": "case\tsplit\na\ttrain\nb\ttest\n"}  # fmt: skip


@pytest.fixture
def lists(tmp_path: Path) -> dict[str, str]:
    """Return lists of cases: folds and a fixed test set, folds alone, no folds."""
    for name, text in LISTED.items():
        (tmp_path / f"{name}.tsv").write_text(text)
    return {name: str(tmp_path / f"{name}.tsv") for name in LISTED}


def study_of(split: dict[str, Any], **settings: Any) -> Study:
    return Study.from_mapping({**BASE, "split": split, **settings})


def test_runs_are_experiments_times_folds_times_seeds(lists: dict[str, str]) -> None:
    study = study_of({"folds": 2}, experiments={"a": {}, "b": {}}, seeds=[3, 4])
    assert study.runs == ["a-f0-s3", "a-f0-s4", "a-f1-s3", "a-f1-s4", "b-f0-s3", "b-f0-s4", "b-f1-s3", "b-f1-s4"]
    assert study_of({"folds": 5}, folds=[4, 1, 4]).runs == ["ccsd-f4-s0", "ccsd-f1-s0"]
    assert study_of({"list": lists["plain"]}).runs == ["ccsd-f3-s0", "ccsd-f5-s0"]
    assert study_of({"list": lists["none"]}).runs == ["ccsd-s0"]
    assert study.training_digest("a-f0-s3") == study.training_digest("a-f1-s3") != study.training_digest("a-f0-s4")
    assert fold_option("a-f1-s3") == "--set split.fold=1 "
    assert fold_option("a-s3") == ""


def test_folds_are_scored_together_only_where_a_case_is_in_none(lists: dict[str, str]) -> None:
    seeds = study_of({"folds": 2}, seeds=[0, 1], ensembles=True)
    assert seeds.models == [*seeds.runs, "ccsd-f0-s0+1", "ccsd-f1-s0+1"]
    assert "the models of the folds are not scored together" in seeds.notes[0]
    both = study_of({"list": lists["fixed"]}, seeds=[0, 1], ensembles=True)
    assert both.models[-3:] == ["ccsd-f0-s0+1", "ccsd-f1-s0+1", "ccsd-f0+1-s0+1"]
    assert both.notes == []
    assert study_of({"list": lists["fixed"]}, ensembles=True).models[-1] == "ccsd-f0+1-s0"
    assert study_of({"list": lists["none"], "folds": 3}, ensembles=True).models[-1] == "ccsd-f0+1+2-s0"
    assert study_of({"folds": 2}, folds=[1], seeds=[0, 1], ensembles=True).notes == []
    for split in ({"folds": 2}, {"list": lists["plain"]}):
        with pytest.raises(
            UsageError, match=r"ensembles: the models of the folds are not scored together.*split\.list"
        ):
            study_of(split, ensembles=True)
    with pytest.raises(UsageError, match="needs two seeds or more"):
        study_of({"list": lists["none"]}, ensembles=True)


@pytest.mark.parametrize(
    ("split", "settings", "words"),
    [
        ({"folds": 5}, {"folds": [7, 5]}, "folds: no fold 5; there are 0, 1, 2, 3, 4"),
        ({"folds": 1}, {}, "split.folds"),
        ({}, {"folds": 5}, "lists the folds to train, such as .0, 1.; for the number of folds, set split.folds: 5"),
        ({}, {"folds": [0]}, "folds: the split has none; set split.folds, such as 5, or give split.list a column fold"),
        ({"list": "none"}, {"folds": [0, 1]}, "folds: the split has none"),
        ({"list": "plain"}, {"folds": [0]}, "no fold 0; there are 3, 5"),
        ({"list": "plain", "folds": 5}, {}, "split.folds: 5, but .* has 2 folds"),
        ({"folds": 5, "fold": 1}, {}, r"split.fold is for a single `ccsd train`; in a study, set folds: \[1\]"),
        ({"folds": 5, "train": 0.5}, {}, "train does not apply to folds"),
        ({"folds": 2, "val": 0.5}, {}, "val is 0.5; with 2 folds it must be below 0.5"),
    ],
)
def test_folds_that_there_are_not_are_rejected_before_anything_runs(
    lists: dict[str, str], split: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    if "list" in split:
        split = {**split, "list": lists[split["list"]]}
    with pytest.raises(UsageError, match=words):
        study_of(split, **settings)


def test_options_of_the_split(lists: dict[str, str]) -> None:
    assert split_options(study_of({})) == "--seed 0 --train 0.7 --val 0.1 --max-rejected 0.05"
    assert split_options(study_of({"folds": 3})) == "--seed 0 --val 0.1 --max-rejected 0.05 --folds 3"
    none, plain = lists["none"], lists["plain"]
    assert split_options(study_of({"list": none})) == f"--list {none} --max-rejected 0.05"
    assert split_options(study_of({"list": plain})) == f"--seed 0 --val 0.1 --max-rejected 0.05 --list {plain}"


def test_names_are_taken_apart_as_they_were_made() -> None:
    assert run_key("a.b-f12-s3") == RunKey("a.b", 12, 3)
    assert members("ccsd-f0+1-s0+2") == ["ccsd-f0-s0", "ccsd-f0-s2", "ccsd-f1-s0", "ccsd-f1-s2"]
    for name in ("ccsd-s0", "ccsd-s1+0", "ccsd-f2-s0", "ccsd-f1+0-s0", "ccsd-f0+1-s0+2"):
        assert ensemble_name([run_key(run) for run in members(name)]) == name
    assert ensemble_name([RunKey("a", 0, 0), RunKey("a", 1, 1)]) == "a-f0-s0+a-f1-s1"
    assert ensemble_name([RunKey("a", None, 1), RunKey("a", None, 1)]) == "a-s1+1"
    assert members("no-run") == ["no-run"]


def test_new_cases_may_be_segmented_by_all_folds() -> None:
    study = study_of({"folds": 2}, predict={"models": ["ccsd-f0+1-s0"]})
    assert NewCases(study).models == ("ccsd-f0+1-s0",)
    with pytest.raises(UsageError, match=r"no model 'ccsd-f0\+2-s0'; allowed: ccsd-f0-s0, ccsd-f1-s0"):
        NewCases(study_of({"folds": 2}, predict={"models": ["ccsd-f0+2-s0"]}))


@pytest.fixture
def stores(made_study: Path, tmp_path: Path) -> Path:
    """Return a copy of the four converted cases; of the folds 0 and 1 each holds out one, and two are in none."""
    stores = Path(shutil.copytree(made_study / "data", tmp_path / "stores", copy_function=os.link))
    (stores / "split.tsv").unlink()
    first, second, *rest = cases(stores)
    (stores / "split.tsv").write_text(Folds({first: 0, second: 1}, {}, tuple(rest), GLIOMA.label).as_tsv())
    return stores


def cases(data: Path) -> list[str]:
    return sorted(path.name.removesuffix(".zarr") for path in data.glob("*.zarr"))


@pytest.fixture
def runs(make_run: Callable[..., Path]) -> list[Path]:
    """Return a run of each fold."""
    found = [make_run(f"f{fold}", seed=fold + 1) for fold in (0, 1)]
    for fold, run in enumerate(found):
        record = json.loads((run / "run.json").read_text())
        record["config"]["split"]["fold"], record["config"]["train"]["seed"] = fold, 0
        (run / "run.json").write_text(json.dumps(record))
    return found


def scored(models: Sequence[Path], stores: Path, out: Path, **options: Any) -> tuple[set[str], dict[str, Any]]:
    table = evaluate_model(models, stores, out, ["t2"], **options)
    assert table is not None
    return set(read_metrics(table)["case"]), json.loads((out / "evaluation.json").read_text())["identity"]


def test_a_model_is_scored_on_what_its_fold_holds_out(stores: Path, runs: list[Path], tmp_path: Path) -> None:
    hashes = set()
    for fold, run in enumerate(runs):
        found, identity = scored([run], stores, tmp_path / run.name)
        assert found == {cases(stores)[fold]}
        assert (identity["experiment"], identity["fold"]) == ("ccsd", fold)
        table = read_metrics(tmp_path / run.name / "metrics.tsv")
        assert set(table["fold"]) == {fold}
        hashes |= {identity["split_hash"][:12], *table["split_hash"]}
    assert len(hashes) == 1, "the folds of one split belong together"


def test_models_of_several_folds_are_scored_on_cases_in_none(stores: Path, runs: list[Path], tmp_path: Path) -> None:
    found, identity = scored(runs, stores, tmp_path / "out")
    assert found == set(cases(stores)[2:])
    assert identity["experiment"] == "ccsd-f0+1-s0"
    assert "fold" not in identity
    assert [model["fold"] for model in identity["models"]] == [0, 1]
    assert read_metrics(tmp_path / "out" / "metrics.tsv")["fold"].isna().all()

    first, second, *_ = cases(stores)
    (stores / "split.tsv").write_text(Folds({first: 0, second: 1}, {}, (), GLIOMA.label).as_tsv())
    words = ["--data", stores, "--out", tmp_path / "rejected", "-m", "t2"]
    done = ccsd_here("evaluate", "--model", runs[0], "--model", runs[1], *words)
    assert done.returncode == 2
    assert "has no case outside the folds 0, 1: models of several folds cannot be scored together" in done.stderr
    assert not (tmp_path / "rejected").exists()


def test_the_fold_of_a_model_of_none_is_asked_for(stores: Path, make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run("whole", seed=1)
    assert scored([run], stores, tmp_path / "fixed")[0] == set(cases(stores)[2:])
    assert scored([run], stores, tmp_path / "one", fold=1)[0] == {cases(stores)[1]}
    first, second, *_ = cases(stores)
    (stores / "split.tsv").write_text(Folds({first: 0, second: 1}, {}, (), GLIOMA.label).as_tsv())
    with pytest.raises(UsageError, match="has the folds 0, 1, and the model belongs to none; choose one with --fold"):
        evaluate_model(run, stores, tmp_path / "out")
    with pytest.raises(InputError, match=r"no fold 2 in split\.tsv; there are 0, 1"):
        evaluate_model(run, stores, tmp_path / "out", fold=2)


def test_cases_that_a_model_knows_are_named(
    stores: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs[0] / "split.tsv").write_text(split_for(stores, "the test", GLIOMA, 0).as_tsv())
    scored(runs[:1], stores, tmp_path / "own")
    assert "warning" not in capsys.readouterr().err
    scored(runs[:1], stores, tmp_path / "other", fold=1)
    said = capsys.readouterr().err
    assert f"{runs[0]} was trained or selected with cases that have the same names as 1 of the 1 test cases" in said

    data_hash = json.loads((stores / "dataset.json").read_text())["data_hash"]
    record = json.loads((runs[0] / "run.json").read_text())
    (runs[0] / "run.json").write_text(json.dumps({**record, "data_hash": data_hash, "split_hash": "of another split"}))
    scored(runs[:1], stores, tmp_path / "same", fold=1)
    assert f"with 1 of the 1 test cases ({cases(stores)[1]}): the scores are too good" in capsys.readouterr().err
    scored(runs[:1], stores, tmp_path / "again", fold=0)
    assert "warning" not in capsys.readouterr().err, "cases count, not hashes"


def test_data_without_folds_have_none(made_study: Path) -> None:
    with pytest.raises(
        InputError, match="has no folds, but fold 1 is requested; create folds with `ccsd split --folds`"
    ):
        split_for(made_study / "data", "the test", GLIOMA, 1)


def test_an_experiment_is_not_called_like_an_adopted_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "results" / "s" / "evaluation" / "rfnet" / "adopted" / "metrics.tsv"
    table.parent.mkdir(parents=True)
    table.touch()
    assert study_of({}).runs == ["ccsd-s0"]
    with pytest.raises(UsageError, match=r"experiments: rfnet is the name of an adopted method; .*/rfnet"):
        study_of({}, experiments={"ccsd": {}, "rfnet": {}})

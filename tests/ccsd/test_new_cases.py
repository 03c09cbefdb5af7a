"""New cases of a study: their jobs, what they depend on, and invalid settings."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from ccsd.errors import USER_ERRORS
from ccsd.new_cases import NewCases
from ccsd.snakemake import evaluation_options, prediction_options, segmented_cases
from ccsd.study import Study, members
from support.hostile import HOSTILE


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder with five cases of empty files."""
    for number in range(5):
        (tmp_path / "new" / f"P{number}").mkdir(parents=True)
        (tmp_path / "new" / f"P{number}" / f"P{number}_t1.nii.gz").touch()
    return tmp_path / "new"


def study_with(predict: dict[str, Any], **settings: Any) -> Study:
    return Study.from_mapping({"name": "s", "phantom": {"cases": 5}, "seeds": [0, 1], "predict": predict, **settings})


def test_without_a_source_there_is_nothing_to_do() -> None:
    new = NewCases(study_with({}))
    assert (new.cases, new.jobs, new.outdated_marks(), segmented_cases(new)) == ([], [], {}, [])


def test_jobs_are_models_times_parts(source: Path) -> None:
    new = NewCases(study_with({"source": str(source), "cases_per_job": 3}))
    assert new.jobs == [(run, part) for run in ("ccsd-s0", "ccsd-s1") for part in ("1-of-2", "2-of-2")]
    chosen = NewCases(study_with({"source": str(source), "models": ["ccsd-s0+1"]}, ensembles=True))
    assert chosen.jobs == [("ccsd-s0+1", "1-of-1")]


@pytest.mark.parametrize(
    ("predict", "settings", "words"),
    [
        ({"source": "nowhere"}, {}, "nowhere: no such folder"),
        ({"source": "."}, {}, "predict.source: . has no case of the task brats-gli-pre; `ccsd audit .`"),
        ({"models": ["ccsd-s2"]}, {}, "no model 'ccsd-s2'; allowed: ccsd-s0, ccsd-s1, or several seeds"),
        ({"models": ["ccsd-s1+1"]}, {}, "no model 'ccsd-s1+1'"),
        ({"models": ["other-s0"]}, {}, "no model 'other-s0'"),
        ({"models": [""]}, {}, "no model ''"),
        ({"labels": "nonsense"}, {}, "nonsense"),
        ({"nonsense": 1}, {}, "predict.nonsense: unknown key; allowed here: source, models"),
        ({}, {"seeds": [3], "ensembles": True}, "ensembles: true averages over seeds and needs two or more"),
        ({}, {"seeds": [3, 3], "ensembles": True}, "ensembles: true averages over seeds and needs two or more"),
    ],
)
def test_what_cannot_be_is_rejected(
    predict: dict[str, Any], settings: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(USER_ERRORS) as caught:
        _ = NewCases(study_with(predict, **settings)).jobs
    assert words in str(caught.value)


def test_ensembles_are_scored_besides_the_runs_and_only_if_wanted() -> None:
    plain = study_with({}, experiments={"a": {}, "b": {}})
    assert plain.models == plain.runs
    both = study_with({}, experiments={"a": {}, "b": {}}, ensembles=True)
    assert both.models == [*plain.runs, "a-s0+1", "b-s0+1"]
    assert members("my-odd.name-s0+12") == ["my-odd.name-s0", "my-odd.name-s12"]


def test_an_ensemble_depends_on_each_of_its_runs_and_a_run_on_no_ensemble() -> None:
    plain, ensembles = study_with({}), study_with({}, ensembles=True)
    assert plain.evaluation_digest("ccsd-s0") == ensembles.evaluation_digest("ccsd-s0")
    assert evaluation_options(plain, "part-1-of-1") == evaluation_options(ensembles, "part-1-of-1", "ccsd-s0")
    more = study_with({}, seeds=[0, 1, 2], ensembles=True)
    digests = {ensembles.evaluation_digest("ccsd-s0+1"), more.evaluation_digest("ccsd-s0+1+2")}
    assert len(digests | {plain.evaluation_digest("ccsd-s0")}) == 3
    assert shlex.split(evaluation_options(more, "part-1-of-1", "ccsd-s0+1+2"))[:4] == [
        "--model", "results/s/runs/ccsd-s1", "--model", "results/s/runs/ccsd-s2"
    ]  # fmt: skip


def test_a_new_case_or_sequence_or_another_training_changes_what_decides(source: Path) -> None:
    before = NewCases(study_with({"source": str(source)})).digest("ccsd-s0")
    assert NewCases(study_with({"source": str(source), "cases_per_job": 1})).digest("ccsd-s0") == before
    assert NewCases(study_with({"source": str(source)}, train={"steps": 5})).digest("ccsd-s0") != before
    (source / "P4" / "P4_t2.nii.gz").touch()
    more = NewCases(study_with({"source": str(source)})).digest("ccsd-s0")
    assert more != before
    (source / "P9").mkdir()
    (source / "P9" / "P9_t1.nii.gz").touch()
    assert NewCases(study_with({"source": str(source)})).digest("ccsd-s0") not in (before, more)


@pytest.mark.parametrize("value", [*HOSTILE, "two words"])
def test_options_survive_the_shell(value: str) -> None:
    settings = {"layout": value, "allow": [value], "probabilities": True, "labels": "msd"}
    new = NewCases(study_with(settings, evaluation={"flips": True, "overlap": 0.25}))
    assert shlex.split(prediction_options(new, "ccsd-s0+1")) == [
        "--model", "results/s/runs/ccsd-s0", "--model", "results/s/runs/ccsd-s1", "--labels", "msd", "--overlap",
        "0.25", "--flips", "--probabilities", "--layout", value, "--allow", value
    ]  # fmt: skip


def test_deleted_segmentations_outdate_the_mark_of_their_part(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    new = NewCases(study_with({"source": str(source), "cases_per_job": 3, "models": ["ccsd-s0"]}))
    folder = new.study.folder
    marks = [folder.mark("predict", *job) for job in new.jobs]
    made = [folder.predictions("ccsd-s0") / f"{case}.nii.gz" for case in new.cases]
    for path in (*made, *marks):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert new.outdated_marks() == {}
    both = NewCases(study_with({**new.settings.model_dump(mode="json"), "probabilities": True}))
    assert both.outdated_marks() == {folder.predictions("ccsd-s0"): marks}
    made[-1].unlink()
    assert new.outdated_marks() == {folder.predictions("ccsd-s0"): [marks[1]]}
    marks[1].unlink()
    assert new.outdated_marks() == {}

"""The run that a training starts from: what matters about it, what is rejected, and records of a model's origin."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccsd.cli import app
from ccsd.config.load import load_config, validate_config
from ccsd.config.science import science_digest
from ccsd.errors import UsageError
from ccsd.inference.predict import predict
from ccsd.records import RunRecord, Start
from ccsd.report import write_report
from ccsd.start import start_of
from ccsd.study import Study
from support.runs import config_of, write_run
from support.tasks import SHELLS, task_of

HASH = "ab" * 32


@pytest.fixture
def start(tmp_path: Path) -> Path:
    write_run(tmp_path / "start", config_of(), split_hash="split", data_hash="data")
    return tmp_path / "start"


def digest(**train: object) -> str:
    return science_digest(config_of(**train), "split")


def test_of_a_start_its_weights_count_and_not_its_place(start: Path, tmp_path: Path) -> None:
    shutil.copytree(start, tmp_path / "moved")
    write_run(tmp_path / "other", config_of(), seed=6)
    assert digest(init=start) == digest(init=tmp_path / "moved")
    assert len({digest(), digest(init=start), digest(init=tmp_path / "other")}) == 3


def test_freezing_and_rate_count_too(start: Path) -> None:
    assert len({digest(init=start, **more) for more in ({}, {"freeze": 0.5}, {"init_rate": 0.5})}) == 3


def test_the_digest_needs_the_record_alone(start: Path) -> None:
    before = digest(init=start)
    (start / "model.safetensors").unlink()
    assert digest(init=start) == before


@pytest.mark.parametrize("file", ["run.json", "model.safetensors"])
def test_a_file_of_a_run_is_not_the_run(file: str, start: Path) -> None:
    with pytest.raises(
        UsageError, match=rf"train\.init: .*{file}: not a finished run .*; give the folder of a finished"
    ):
        start_of(config_of(init=start / file))


@pytest.mark.parametrize("folder", ["nothing", "nothing\0", "x" * 300])
def test_what_is_no_finished_run_is_rejected_with_what_to_give(folder: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"train\.init: .*; give the folder of a finished training run, such as results/"
    ):
        start_of(config_of(init=tmp_path / folder))


def test_a_damaged_record_is_rejected(start: Path) -> None:
    (start / "run.json").write_text("{")
    with pytest.raises(UsageError, match=r"train\.init: .*run\.json: cannot be read"):
        start_of(config_of(init=start))


def test_a_run_does_not_start_from_itself(start: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(start)
    for own in (start, tmp_path / "link", start / "../start"):
        with pytest.raises(UsageError, match="is trained by this configuration, which would overwrite its own start"):
            start_of(config_of(init=start), own)
    assert start_of(config_of(init=start), tmp_path / "another") is not None


@pytest.mark.parametrize("key", ["freeze", "init_rate"])
def test_what_is_for_fine_tuning_is_rejected_without_a_start(key: str, start: Path) -> None:
    raw = {"name": "x", "phantom": {}, "train": {key: 0.25}}
    with pytest.raises(
        UsageError, match=f"train.{key} is for fine-tuning; set train.init to the run to start from, or"
    ):
        validate_config(raw, "c")
    model = {"width": 4, "levels": 2}
    config = validate_config({**raw, "model": model, "train": {key: 0.25, "init": str(start)}}, "c")
    assert start_of(config) is not None


def study_of(init: Path | str, **more: object) -> Study:
    raw = {"name": "s", "phantom": {"cases": 5}, "model": {"width": 4, "levels": 2}, **more}
    return Study.from_mapping({**raw, "experiments": {"scratch": {}, "tuned": {"train.init": str(init)}}})


def test_a_study_has_scratch_and_fine_tuned_side_by_side(start: Path) -> None:
    study = study_of(start)
    assert study.runs == ["scratch-s0", "tuned-s0"]
    assert study.training_digest("scratch-s0") != study.training_digest("tuned-s0")


def test_a_study_rejects_a_start_before_anything_runs(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="not a finished run"):
        study_of(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"set model\.width=4, or train from scratch"):
        study_of(start, model={"width": 8, "levels": 2})
    write_run(tmp_path / "far", config_of(task_of("adc")))
    with pytest.raises(UsageError, match="has none of them, only t1, ct"):
        study_of(tmp_path / "far", task=SHELLS.model_dump(mode="json"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(start, "results/s/runs/scratch-s0")
    with pytest.raises(UsageError, match="in the workflow, use another study name"):
        study_of("results/s/runs/scratch-s0")


def test_the_written_configuration_is_read_back(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_of(start)
    study.write_config()
    tuned = load_config(study.folder.config, experiment="tuned")
    assert science_digest(tuned, "") == study.training_digest("tuned-s0")


def test_a_job_whose_start_was_trained_again_names_it(start: Path, tmp_path: Path, data: Path) -> None:
    (tmp_path / "c.yaml").write_text(json.dumps(config_of(init=start).model_dump(mode="json")))
    options = ["--config", str(tmp_path / "c.yaml"), "--data", str(data), "--run", str(tmp_path / "own")]
    found = CliRunner().invoke(app, ["train", *options, "--science", digest(init=start)])
    assert f"{data}, {start} or {tmp_path / 'c.yaml'} changed after this job was submitted" in str(found.exception)


def fine_tuned(run: Path, **start: object) -> None:
    """Write into a run's record that it was fine-tuned."""
    earlier = Start(run="first", model_hash="cd" * 32, task="mine@1")
    found = Start.model_validate(
        {"run": "hospital/start", "model_hash": HASH, "task": "mine@2", "start": earlier, **start}
    )
    RunRecord.read(run).model_copy(update={"start": found}).write(run)


WORDS = (
    "fine-tuned from hospital/start (model abababababab, task mine@2), which was fine-tuned from first (model cdcdcd"
)


@pytest.mark.parametrize("tuned", [True, False])
def test_a_prediction_says_where_the_model_comes_from(
    made_study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tuned: bool
) -> None:
    run = Path(shutil.copytree(made_study / "runs/ccsd-s0", tmp_path / "model"))
    if tuned:
        fine_tuned(run)
    case = next(path for path in sorted((made_study / "phantoms").iterdir()) if path.is_dir())
    (outcome,) = predict([case], tmp_path / "out.nii.gz", run)
    assert outcome.error is None
    assert f"model: {run}, {WORDS if tuned else 'trained from scratch'}" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_report_says_where_the_models_come_from_and_what_they_may_have_seen(study: Path) -> None:
    data_hash = json.loads((study / "runs/ccsd-s0/run.json").read_text())["data_hash"]
    fine_tuned(study / "runs/ccsd-s0", data_hash=data_hash, split_hash="another")
    page = write_report(study).page.read_text()
    assert WORDS in page
    assert (
        "ccsd-s0 was fine-tuned from a run that was trained with another split of the same data: it may have seen"
        in page
    )


@pytest.mark.parametrize(("data", "split", "knows"), [("a", "t", True), ("a", "s", False), ("b", "t", False)])
def test_a_start_knows_test_cases_if_it_or_its_own_start_had_another_split_of_the_data(
    data: str, split: str, knows: bool
) -> None:
    start = Start(run="start", model_hash=HASH, data_hash=data, split_hash=split)
    later = Start(run="later", model_hash=HASH, data_hash="else", split_hash="else", start=start)
    for found in (start, later):
        assert RunRecord(config={}, data_hash="a", split_hash="s", start=found).may_know_test_cases == knows
    assert not RunRecord(config={}, data_hash="a", split_hash="s").may_know_test_cases
    assert not RunRecord(config={}, split_hash="s", start=Start(run="x", model_hash=HASH)).may_know_test_cases

"""Training as a program of one process: exact resume, rejections, what it leaves."""

import json
import shutil
from pathlib import Path

import pytest

from ccsd.errors import UsageError
from ccsd.model import load_model
from ccsd.records import read_events
from preprocess.splits import read_split
from support.comparing import assert_same_run, science
from support.hostile import SECRETS, files_with_secrets
from support.trainings import Ending, Launch, training

NAN = ("train.learning_rate=1e30", "train.clip=0", "train.warmup=0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


@pytest.fixture(scope="module")
def endings(launch: Launch, runs: Path, inputs: Path) -> dict[str, Ending]:
    """Several trainings in one launch: starting a process takes longer than they do."""
    best = "train.select=best"
    for name in ("calibration.json", "calibration-1234.json"):  # of weights that were there before
        (runs / "parts").mkdir(exist_ok=True)
        (runs / "parts" / name).write_text("{}")
    items = {
        "whole": training(runs / "whole", best),
        "stopped": training(runs / "parts", best, stop_at=2),
        "resumed": training(runs / "parts", best, "runtime.workers=1", "runtime.keep_last=1"),
        "again": training(runs / "parts", best),
        "other": training(runs / "other", stop_at=1),
        "changed": training(runs / "other", "train.learning_rate=0.002", "train.steps=1"),
        "data": training(runs / "data", "train.steps=1"),
        "corrected": training(
            runs / "data", "train.steps=1", options=("--data", str(_corrected(inputs / "data", runs)))
        ),
        "original": training(runs / "data", "train.steps=1"),
        "limited": training(runs / "limited", options=("--stop-after", "0.001")),
        "nan": training(runs / "nan", *NAN),
        "offload": training(runs / "offload", "runtime.offload=optimizer"),
        "wandb": training(runs / "wandb", "runtime.sinks=[wandb]"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        (found,) = launch(*items.values())
    return dict(zip(items, found, strict=True))


def _corrected(data: Path, runs: Path) -> Path:
    """Return a copy of the data with another segmentation of a training case."""
    copy = Path(shutil.copytree(data, runs / "corrected"))
    attributes = copy / f"{read_split(data).train[0]}.zarr" / "zarr.json"
    content = json.loads(attributes.read_text())
    content["attributes"]["ccsd"]["sources"]["seg"]["sha256"] = "0" * 64
    attributes.write_text(json.dumps(content))
    return copy


def test_a_resumed_training_is_the_undisturbed_one(endings: dict[str, Ending], runs: Path) -> None:
    assert endings["whole"].code == 0, endings["whole"].text
    assert endings["stopped"].code == 75
    assert "stopped at step 2, which is saved" in endings["stopped"].text
    assert endings["resumed"].code == 0
    assert "resuming from step 2\n" in endings["resumed"].text
    assert_same_run(runs / "whole", runs / "parts")


def test_what_a_training_leaves(endings: dict[str, Ending], runs: Path) -> None:
    run = load_model(runs / "parts")
    assert run.config.train.steps == run.record.steps == 6
    assert run.record.processes == 1
    assert {"split_hash", "data_hash", "versions", "git", "wall_s", "gpu_hours"} <= run.record.model_fields_set
    assert run.record.spacing_mm == (1.0, 1.0, 1.0)
    events = read_events(runs / "parts")
    assert [event["step"] for event in events if event["event"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [event["step"] for event in events if event["event"] == "validation"] == [3, 6]
    assert sorted(path.name for path in (runs / "parts/overlays").iterdir()) == [
        "step-00000003.png",
        "step-00000006.png",
    ]
    assert [path.name for path in sorted((runs / "parts/checkpoints").iterdir())] == [
        "best.safetensors",
        "step-00000006",
    ]
    assert len(list((runs / "whole/checkpoints").glob("step-*"))) == 2
    assert list((runs / "parts/tensorboard").iterdir())
    assert not list((runs / "parts").glob("calibration*"))


def test_a_finished_training_is_not_done_again(endings: dict[str, Ending]) -> None:
    assert endings["again"].code == 0
    assert endings["again"].text.strip().endswith("already trained with this configuration")


def test_another_configuration_starts_anew_and_keeps_the_old(endings: dict[str, Ending], runs: Path) -> None:
    assert endings["changed"].code == 0
    assert "belong to other settings or data; moved to" in endings["changed"].text
    assert len(list((runs / "other").glob("checkpoints-*"))) == 1


def test_corrected_data_are_trained_on_and_the_earlier_training_is_kept(endings: dict[str, Ending]) -> None:
    assert [endings[name].code for name in ("data", "corrected", "original")] == [0, 0, 0]
    assert "already trained" not in endings["corrected"].text
    assert "starting a new training" in endings["corrected"].text
    assert "continuing with those that were moved away before" in endings["original"].text
    assert "resuming from step 1\n" in endings["original"].text


def test_the_time_limit_stops_after_a_step_with_the_state_saved(endings: dict[str, Ending], runs: Path) -> None:
    assert endings["limited"].code == 75
    assert "stopped at step 1, which is saved" in endings["limited"].text
    assert (runs / "limited/checkpoints/step-00000001").is_dir()


def test_a_loss_that_is_not_finite_stops_before_the_update(endings: dict[str, Ending]) -> None:
    assert endings["nan"].code == 1
    assert "Traceback" not in endings["nan"].text
    assert "is not finite (patches above); nothing was updated" in endings["nan"].text
    assert "patches: BraTS" in endings["nan"].text


def test_what_the_machine_lacks_is_rejected_before_anything_is_written(endings: dict[str, Ending], runs: Path) -> None:
    assert (endings["offload"].code, endings["wandb"].code) == (2, 2)
    assert "this process has no GPU; use runtime.offload=none" in endings["offload"].text
    assert "wandb is not installed; install it with `pip install wandb`" in endings["wandb"].text
    assert not (runs / "offload").exists()
    assert not (runs / "wandb").exists()


def test_a_run_is_rejected_when_its_files_do_not_belong_together(endings: dict[str, Ending], runs: Path) -> None:
    with pytest.raises(UsageError, match="not a finished run"):
        load_model(runs / "nan")
    run = runs / "changed-files"
    run.mkdir()
    record = json.loads((runs / "whole/run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"model_hash": "0"}))
    (run / "model.safetensors").write_bytes((runs / "whole/model.safetensors").read_bytes())
    with pytest.raises(UsageError, match=r"is not the file that run\.json describes"):
        load_model(run)
    (run / "model.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    with pytest.raises(UsageError, match="not a complete safetensors file"):
        load_model(run)


def test_the_record_has_a_curve_for_each_term(endings: dict[str, Ending], runs: Path) -> None:
    train = next(event for event in science(runs / "whole") if event["event"] == "train")
    assert train.keys() == {
        "event",
        "step",
        "loss",
        "supervised",
        "hmsd",
        "dmcd",
        "shared",
        "specific",
        "grad_norm",
        "skipped",
        "lr",
    }
    assert "data_share" in next(event for event in read_events(runs / "whole") if event["event"] == "train")


def test_no_secret_of_the_environment_is_written(endings: dict[str, Ending], runs: Path) -> None:
    """Weights, record, checkpoints, curves and what is printed; TensorBoard is among the sinks."""
    assert "secret-" not in "".join(ending.text for ending in endings.values())
    assert files_with_secrets(runs) == []


def test_files_of_a_run_are_as_readable_as_others(endings: dict[str, Ending], runs: Path) -> None:
    (runs / "plain").touch()
    readable = (runs / "plain").stat().st_mode
    files = [path for path in (runs / "whole").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert {path for path in files if path.stat().st_mode != readable} == set()

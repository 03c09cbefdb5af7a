"""Training as a program: resumed runs equal undisturbed ones, and processes together equal one alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ccsd.model import load_run
from ccsd.training.record import read_events

Train = Callable[..., Any]
TIMES = {"step_s", "data_s", "samples_per_s", "memory_mb"}


def science(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if k not in TIMES} for event in read_events(run)]


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    a, b = (load_file(run / "model.safetensors") for run in (one, other))
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def check_resume(train: Train, folder: Path, *settings: str, world: int) -> None:
    whole = train(folder / "whole", *settings, world=world)
    assert whole.returncode == 0, whole.stdout
    stopped = train(folder / "parts", *settings, world=world, stop_at=2)
    assert stopped.returncode == 75, stopped.stdout
    assert "stopped at step 2; the same command carries on" in stopped.stdout
    assert not (folder / "parts" / "model.safetensors").exists()
    resumed = train(folder / "parts", *settings, world=world)
    assert resumed.returncode == 0, resumed.stdout
    assert "resuming from step 2" in resumed.stdout
    assert (folder / "whole/model.safetensors").read_bytes() == (folder / "parts/model.safetensors").read_bytes()
    # The loss at the end is averaged since the last record, which a resumed run starts anew.
    assert science(folder / "whole")[-1] == science(folder / "parts")[-1]


def test_one_process_resumes_exactly_and_leaves_a_model(train: Train, tmp_path: Path) -> None:
    check_resume(train, tmp_path, world=1)
    run = load_run(tmp_path / "parts")
    assert run.config.train.steps == run.info["steps"] == 6
    assert run.info["processes"] == 1
    assert {"split_hash", "data_hash", "versions", "git", "wall_s", "gpu_hours"} <= run.info.keys()
    validated = [event["step"] for event in read_events(tmp_path / "parts") if event["event"] == "validation"]
    assert validated == [3, 6]
    again = train(tmp_path / "parts")
    assert (again.returncode, again.stdout.strip()[-38:]) == (0, "already trained with this configuration"[-38:])


def test_another_configuration_starts_anew_and_keeps_the_old(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path, stop_at=1).returncode == 75
    other = train(tmp_path, "train.learning_rate=0.002", "train.steps=1")
    assert other.returncode == 0
    assert "belong to other settings or data; moved to" in other.stdout
    assert len(list(tmp_path.glob("checkpoints-*"))) == 1


def test_a_loss_that_is_not_finite_stops_before_the_update(train: Train, tmp_path: Path) -> None:
    result = train(tmp_path, "train.learning_rate=1e30", "train.clip=0", "train.warmup=0")
    assert result.returncode == 1
    assert "Traceback" not in result.stdout
    assert "is not finite (patches above); nothing was updated" in result.stdout
    assert "patches: BraTS" in result.stdout


def test_resuming_with_another_number_of_processes_says_so(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path, stop_at=1).returncode == 75
    result = train(tmp_path, world=2)
    assert result.returncode == 2
    assert "made by 1 processes with ZeRO stage 1; this run has 2" in result.stdout


def test_two_sharded_processes_resume_exactly_and_equal_one(train: Train, tmp_path: Path) -> None:
    check_resume(train, tmp_path, "train.zero_stage=2", world=2)
    alone = train(tmp_path / "alone", world=1)
    assert alone.returncode == 0
    assert_close(tmp_path / "whole", tmp_path / "alone", tolerance=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world", [1, 2])
def test_every_stage_equals_one_process(train: Train, tmp_path: Path, stage: int, world: int) -> None:
    assert train(tmp_path / "plain", "train.zero_stage=0").returncode == 0
    assert train(tmp_path / "sharded", f"train.zero_stage={stage}", world=world).returncode == 0
    assert_close(tmp_path / "plain", tmp_path / "sharded", tolerance=2e-4)


@pytest.mark.slow
def test_stage_three_resumes_exactly(train: Train, tmp_path: Path) -> None:
    check_resume(train, tmp_path, "train.zero_stage=3", world=2)


def test_a_run_is_refused_when_its_files_do_not_belong_together(train: Train, tmp_path: Path) -> None:
    from ccsd.errors import UsageError

    with pytest.raises(UsageError, match="not a finished run"):
        load_run(tmp_path)
    assert train(tmp_path, "train.steps=1").returncode == 0
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"model_hash": "0"}))
    with pytest.raises(UsageError, match=r"is not the file that run\.json describes"):
        load_run(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        load_run(tmp_path)

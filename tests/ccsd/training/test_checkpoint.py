"""Folders of checkpoints: which one is resumed from, what is rejected, and which configurations they serve."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ccsd.errors import TrainingError, UsageError
from ccsd.study import BEST, CHECKPOINTS
from ccsd.training import checkpoint
from ccsd.training.checkpoint import META, CheckpointMeta, latest, to_resume
from ccsd.training.distributed import Process
from ccsd.training.zero_shards import CheckpointFiles, checkpoint_file_name

ALONE = Process(0, 1, torch.device("cpu"))


def meta(step: int = 5, science: str = "abc") -> CheckpointMeta:
    return CheckpointMeta(step=step, world=1, zero_stage=1, science=science, wall_s=1.0)


def put(run: Path, text: str, step: int = 5) -> None:
    (run / CHECKPOINTS / meta(step).tag).mkdir(parents=True)
    (run / CHECKPOINTS / meta(step).tag / META).write_text(text)


def test_no_checkpoint(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    (tmp_path / CHECKPOINTS / ".step-00000007").mkdir(parents=True)
    assert latest(tmp_path) is None


def test_the_highest_step_is_resumed_from(tmp_path: Path) -> None:
    for step in (900, 5, 1000):
        put(tmp_path, json.dumps(vars(meta(step))), step)
    assert latest(tmp_path) == meta(1000)


@pytest.mark.parametrize("text", ["", "[]", '{"step": 1}', "no json"])
def test_damaged_metadata_is_rejected(tmp_path: Path, text: str) -> None:
    put(tmp_path, text)
    with pytest.raises(UsageError, match=r"step-00000005: not a checkpoint of this program .* remove this folder"):
        latest(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 a pickle"])
def test_a_damaged_part_is_rejected(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / checkpoint_file_name(0, 1)).write_bytes(content)
    with pytest.raises(
        UsageError, match=r"the checkpoint is damaged .* remove this folder, then run the same command again"
    ):
        CheckpointFiles(tmp_path, world=1)


def test_checkpoints_of_other_settings_are_moved_away_and_taken_back(tmp_path: Path) -> None:
    put(tmp_path, json.dumps(vars(meta())))
    assert to_resume(tmp_path, ["new", "abc"]) == meta()
    assert to_resume(tmp_path, ["other"]) is None
    put(tmp_path, json.dumps(vars(meta(1, "other"))), 1)
    assert to_resume(tmp_path, ["new", "abc"]) == meta()
    assert to_resume(tmp_path, ["other"]) == meta(1, "other")
    assert (tmp_path / f"{CHECKPOINTS}-abc" / meta().tag).is_dir()


def test_checkpoints_that_were_moved_away_are_never_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        put(tmp_path, json.dumps(vars(meta())))
        assert to_resume(tmp_path, ["other"]) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{CHECKPOINTS}-abc", f"{CHECKPOINTS}-abc-2"]


def test_the_best_weights_of_a_training_whose_checkpoints_were_deleted_are_not_those_of_the_next(
    tmp_path: Path,
) -> None:
    put(tmp_path, json.dumps(vars(meta())))
    best = tmp_path / CHECKPOINTS / BEST
    best.touch()
    assert to_resume(tmp_path, ["abc"]) == meta()
    assert best.exists()
    shutil.rmtree(tmp_path / CHECKPOINTS / meta().tag)
    assert to_resume(tmp_path, ["abc"]) is None
    assert not best.exists()


@pytest.mark.parametrize("failing", ["_begin", "write_checkpoint_file", "_complete"])
def test_a_save_that_fails_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    put(tmp_path, json.dumps(vars(meta())))
    monkeypatch.setattr(checkpoint, "write_checkpoint_file", lambda *_: None)
    monkeypatch.setattr(checkpoint, failing, fail)
    with pytest.raises(TrainingError, match=r"step 6 could not be saved \(process 0: .*No space left"):
        checkpoint.save(None, tmp_path, meta(6), ALONE, keep_last=1)
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == ["step-00000005"]
    assert latest(tmp_path) == meta()


def test_resuming_says_when_the_work_is_shared_out_anew() -> None:
    assert meta().describe_resume(ALONE, zero_stage=1) == "resuming from step 5"
    other = replace(meta(), plugins=("backbone mean (1.0)",)).describe_resume(ALONE, 1, ("backbone mean (1.1)",))
    assert other.endswith("; note: so far with backbone mean (1.0), from now on with backbone mean (1.1)")
    assert meta().describe_resume(Process(0, 2, ALONE.device), zero_stage=3) == (
        "resuming from step 5; saved by 1 process with ZeRO stage 1, now sharded over 2 processes with stage 3"
    )

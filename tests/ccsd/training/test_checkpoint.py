"""The pointer, and which configurations a checkpoint serves."""

import json
from pathlib import Path

import pytest

from ccsd.config import Config
from ccsd.errors import UsageError
from ccsd.training.checkpoint import FOLDER, POINTER, Mark, latest, science_digest, set_aside

BASE = {"name": "x", "phantom": {}}


def mark(step: int = 5) -> Mark:
    return Mark(step=step, world=1, zero_stage=1, science="abc", wall_s=1.0)


def put(run: Path, text: str) -> None:
    (run / FOLDER / mark().tag).mkdir(parents=True)
    (run / FOLDER / POINTER).write_text(text)


def test_no_checkpoint(tmp_path: Path) -> None:
    assert latest(tmp_path) is None


def test_the_pointer_is_read_back(tmp_path: Path) -> None:
    put(tmp_path, json.dumps(vars(mark())))
    assert latest(tmp_path) == mark()


@pytest.mark.parametrize("text", ["", "[]", '{"step": 1}', "no json"])
def test_a_damaged_pointer_is_refused(tmp_path: Path, text: str) -> None:
    put(tmp_path, text)
    with pytest.raises(UsageError, match="not a checkpoint pointer; remove"):
        latest(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path, json.dumps(vars(mark(step=6))))
    with pytest.raises(UsageError, match="step-00000006, which is missing"):
        latest(tmp_path)


def test_old_checkpoints_are_moved_not_lost(tmp_path: Path) -> None:
    put(tmp_path, json.dumps(vars(mark())))
    aside = set_aside(tmp_path, mark())
    assert (aside / mark().tag).is_dir()
    assert latest(tmp_path) is None


@pytest.mark.parametrize(
    ("section", "key", "value", "same"),
    [
        ("train", "learning_rate", 1e-5, False),
        ("train", "seed", 1, False),
        ("model", "width", 8, False),
        ("distillation", "method", "full", False),
        ("train", "workers", 7, True),
        ("train", "checkpoint_every", 7, True),
        ("evaluation", "overlap", 0.25, True),
    ],
)
def test_a_digest_changes_with_the_science_only(section: str, key: str, value: object, same: bool) -> None:
    one = science_digest(Config.model_validate(BASE), "split")
    other = science_digest(Config.model_validate(BASE | {section: {key: value}}), "split")
    assert (one == other) == same
    assert science_digest(Config.model_validate(BASE), "another split") != one

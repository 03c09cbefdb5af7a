"""What determines a training, and what may change without training again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ccsd.config import Config
from ccsd.config.science import SECTIONS, science_digest
from support.first import first_config

BASE = {"name": "x", "phantom": {}}
DEFAULTS = {
    "model": {"backbone": "light", "width": 16, "levels": 5, "deep_supervision": False},
    "distillation": {
        "method": "ccsd", "hmsd_pairs": "levels", "criterion": "loss", "every_n": 4, "temperature": 4.0,
        "per_step": "one", "supervise_path": False, "weight_full": 2.0,
        "weight_hmsd": 0.5, "weight_dmcd": 0.5, "weight_shared": 0.1, "weight_specific": 0.02, "ramp": 0.1,
    },
    "train": {
        "steps": 60000, "batch_size": 2, "patch": [128, 128, 128], "foreground": 0.5, "augment": True,
        "learning_rate": 0.0002, "weight_decay": 0.0001, "warmup": 0.02, "clip": 12.0, "precision": "bf16",
        "validate_every": 5000, "validate_subsets": ["flair+t1+t1ce+t2", "flair+t1+t2", "t1ce", "flair"],
        "select": "best", "init": None, "init_rate": 0.3, "freeze": 0.0, "seed": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "key", "value", "same"),
    [
        ("train", "learning_rate", 1e-5, False),
        ("train", "seed", 1, False),
        ("model", "width", 8, False),
        ("distillation", "method", "full", False),
        ("runtime", "workers", 7, True),
        ("runtime", "checkpoint_every", 7, True),
        ("runtime", "zero_stage", 3, True),
        ("runtime", "sinks", [], True),
        ("evaluation", "overlap", 0.25, True),
    ],
)
def test_a_digest_changes_with_the_science_only(section: str, key: str, value: object, same: bool) -> None:
    one = science_digest(Config.model_validate(BASE), "split")
    other = science_digest(Config.model_validate(BASE | {section: {key: value}}), "split")
    assert (one == other) == same
    assert science_digest(Config.model_validate(BASE), "another split") != one


def test_defaults_are_no_part_of_the_digest() -> None:
    spelled_out = Config.model_validate(BASE | DEFAULTS)
    assert science_digest(spelled_out, "split") == science_digest(Config.model_validate(BASE), "split")


def test_a_default_that_changed_has_another_digest_and_the_earlier_one_its_own_of_then() -> None:
    earlier = first_config()
    assert science_digest(earlier, "abc") == "4c421aa1fb59743b"  # of the first version
    assert science_digest(Config.model_validate(BASE), "abc") != science_digest(earlier, "abc")


@pytest.mark.parametrize("section", SECTIONS)
def test_no_default_changes_unnoticed(section: str) -> None:
    """A run of an earlier version would be taken for one with the new default: rename a setting that changes."""
    found = getattr(Config.model_validate(BASE), section).model_dump(mode="json")
    assert {name: found[name] for name in DEFAULTS[section]} == DEFAULTS[section]


def test_a_launcher_that_only_waits_does_not_load_torch(data: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("{name: x, phantom: {}}")
    command = ["train", "--config", "study.yaml", "--data", str(data), "--run", "run", "--job", "cluster=slurm"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ccsd", *command],
        cwd=tmp_path, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "the job could not be submitted" in done.stderr
    own = next((tmp_path / "run/job").glob("config-*.yaml"))
    assert own.read_text() == (tmp_path / "study.yaml").read_text()
    command = json.loads((tmp_path / "run/job/001/request.json").read_text())["command"]
    assert command[command.index("--config") + 1] == str(own.relative_to(tmp_path)), (
        "a copy that no later change reaches"
    )
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "cluster.launch" in modules
    assert not {"torch", "deepspeed"} & modules

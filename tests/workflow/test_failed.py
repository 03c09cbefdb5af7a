"""A setting changes and the training fails: afterwards the earlier model must not be taken for the new one."""

import json
from collections.abc import Callable

import pytest
import yaml

from support.projects import HERE, Project

STUDY = {"phantom": {"cases": 5}, "evaluation": {"subsets_per_job": 15}}


def _trained_with(clone: Project, **train: object) -> None:
    """Write the record of a training; that of the stand-in is empty."""
    config = yaml.safe_load((clone.results / "config.yaml").read_text())
    (clone.training / "run.json").write_text(json.dumps({"config": {**config, "train": {**config["train"], **train}}}))


@pytest.mark.slow
def test_a_training_that_failed_with_new_settings_is_tried_again(project: Callable[..., Project]) -> None:
    clone = project()
    clone.configure(**STUDY)
    assert clone.snakemake(*HERE).returncode == 0
    _trained_with(clone)
    clone.forget_calls()
    assert clone.snakemake(*HERE).returncode == 0
    assert clone.calls() == [], "the record of the very settings changes nothing"

    clone.configure(**STUDY, train={"steps": 7})
    failed = clone.snakemake(*HERE, STAND_IN_FAILS="train")
    assert failed.returncode == 1
    assert "Restored previous version" in failed.stderr
    clone.forget_calls()
    done = clone.snakemake(*HERE)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in clone.calls()][-3:] == ["train", "evaluate", "report"]
    _trained_with(clone, steps=7)
    clone.forget_calls()
    assert clone.snakemake(*HERE).returncode == 0
    assert clone.calls() == []

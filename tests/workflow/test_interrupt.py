"""The study on one machine, interrupted while it trains and typed again: nothing lingers, nothing is lost."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STUDY = {
    "phantom": {"cases": 8, "size": 32},
    "split": {"train": 0.5, "val": 0.25},
    "model": {"width": 2, "levels": 2},
    "train": {
        "steps": 60, "patch": [16, 16, 16], "checkpoint_every": 10, "validate_every": 60, "precision": "fp32",
        "workers": 0,
    },
    "evaluation": {"subsets": ["t1ce"]},
}  # fmt: skip
HERE = ("--profile", "cluster/local", "--configfile", "study.yaml")


def _alive(folder: Path) -> list[str]:
    """Return the commands that run for the clone."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def undisturbed(project_at: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the study run in one go."""
    clone = project_at(tmp_path_factory.mktemp("undisturbed") / "clone", stand_in=False)
    clone.configure(**STUDY)
    done = clone.snakemake(*HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    return clone


def test_interrupted_while_it_trains_it_carries_on_with_the_same_result(
    undisturbed: Any, project: Callable[..., Any], eventually: Callable[..., None]
) -> None:
    clone = project(stand_in=False)
    clone.configure(**STUDY)
    running = clone.start(*HERE)
    eventually(clone.steps_saved, 400)
    running.send(signal.SIGINT)
    assert running.process.wait(timeout=120) != 0
    eventually(lambda: _alive(clone.folder) == [], 60)
    assert not (clone.training / "model.safetensors").exists()

    done = clone.snakemake(*HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming from step" in done.stdout + done.stderr
    assert clone.model_hash() == undisturbed.model_hash()


def test_the_report_of_snakemake_can_be_built(undisturbed: Any) -> None:
    done = undisturbed.snakemake(*HERE, "--report", "report.html")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (undisturbed.folder / "report.html").read_text()
    assert "One row per experiment, seed, test case" in page

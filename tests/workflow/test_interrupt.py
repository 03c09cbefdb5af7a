"""The study on one machine, interrupted and killed, and typed again: nothing lingers, nothing is lost."""

import random
import signal
import time
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


def _alive(folder: Path) -> list[psutil.Process]:
    """Return the processes that run for the clone."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def undisturbed(project_at: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the study run in one go, with how many seconds that took."""
    clone = project_at(tmp_path_factory.mktemp("undisturbed") / "clone", stand_in=False)
    clone.configure(**STUDY)
    began = time.monotonic()
    done = clone.snakemake(*HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    clone.seconds = time.monotonic() - began
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


ROUNDS = [pytest.param(seed, marks=() if seed < 2 else pytest.mark.exhaustive) for seed in range(30)]
"""CI has time for two."""
KILLS = 3
LOCK = ".lock"
"""Kept in a training's job folder: removing a file that others lock is a race."""


@pytest.mark.parametrize("seed", ROUNDS)
def test_whatever_is_killed_the_same_command_ends_with_the_same_scores(
    undisturbed: Any, project: Callable[..., Any], eventually: Callable[..., None], seed: int
) -> None:
    """Up to three times a random process of the study is killed at a random moment and the command typed again."""
    clone = project(stand_in=False)
    clone.configure(**STUDY)
    rng = random.Random(seed)
    killed = [_run_and_kill(clone, rng, undisturbed.seconds / 2) for _ in range(KILLS)]
    assert any(killed)
    last = _type(clone)
    assert last.process.wait(timeout=400) == 0, (killed, last.log.read_text())

    assert (clone.results / "metrics.tsv").read_bytes() == (undisturbed.results / "metrics.tsv").read_bytes(), killed
    assert clone.model_hash() == undisturbed.model_hash()
    eventually(lambda: _alive(clone.folder) == [], 60)
    assert not list((clone.folder / ".snakemake").glob("locks/*"))
    assert not [path for path in clone.results.rglob(".*") if path.name != LOCK], killed


def _type(clone: Any) -> Any:
    """Type the command, after the unlocking that Snakemake asks for when it was killed."""
    if any((clone.folder / ".snakemake/locks").glob("*")):
        assert clone.snakemake(*HERE, "--unlock").returncode == 0
    return clone.start(*HERE)


def _run_and_kill(clone: Any, rng: random.Random, seconds: float) -> str | None:
    """Kill one process while the study runs; return which. If it was not Snakemake, that ends by itself."""
    running = _type(clone)
    time.sleep(rng.uniform(0, seconds))
    processes = _alive(clone.folder)
    if not processes:
        return None
    victim = rng.choice(sorted(processes, key=lambda process: process.pid))
    name = _name(victim)
    victim.kill()
    running.process.wait(timeout=400)
    return name


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:160]
    except psutil.Error:
        return "gone"

"""The study on one machine, interrupted, killed and run again: nothing is left running, and nothing is lost."""

import os
import random
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from support.processes import eventually
from support.projects import HERE, Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROUNDS = int(os.environ.get("KILL_ROUNDS", "30"))
"""For hundreds in a manual run: KILL_ROUNDS=300."""
PATIENCE_S = 400
"""Far more than a run needs, and less than a process waits for an unresponsive one, so that a hang fails."""


def test_interrupted_while_it_trains_it_carries_on_with_the_same_result(
    undisturbed: Project, project: Callable[..., Project]
) -> None:
    clone = project(stand_in=False)
    clone.configure_as(undisturbed)
    running = clone.start(*HERE)
    eventually(clone.steps_saved, 400)
    running.send(signal.SIGINT)
    assert running.process.wait(timeout=120) != 0
    eventually(lambda: clone.alive() == [], 60)
    assert not (clone.training / "model.safetensors").exists()

    done = clone.snakemake(*HERE, "--until", "train")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming from step" in done.stdout + done.stderr
    assert clone.model_hash() == undisturbed.model_hash()


def test_the_report_of_snakemake_can_be_built(undisturbed: Project) -> None:
    done = undisturbed.snakemake(*HERE, "--report", "report.html")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (undisturbed.folder / "report.html").read_text()
    assert "One row per experiment, seed, test case" in page


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_whatever_is_killed_the_same_command_ends_with_the_same_scores(
    undisturbed: Project, project: Callable[..., Project], seed: int
) -> None:
    """Kill a random process of the study at a random moment, and run the command again until it is done."""
    clone = project(stand_in=False)
    clone.configure_as(undisturbed)
    rng = random.Random(seed)
    running = clone.start(*HERE)
    killed = _kill_one(clone, rng.uniform(0, undisturbed.seconds), rng)
    codes = [running.process.wait(timeout=PATIENCE_S)]
    while codes[-1] != 0:
        assert len(codes) < 4, (killed, codes, running.log.read_text())
        running = clone.start(*HERE)
        codes.append(running.process.wait(timeout=PATIENCE_S))

    assert clone.scores() == undisturbed.scores(), killed
    assert clone.model_hash() == undisturbed.model_hash()
    eventually(lambda: clone.alive() == [], 60)
    assert clone.leftovers() == [], killed
    print(f"killed {killed}; exit codes {codes}")


def _kill_one(clone: Project, seconds: float, rng: random.Random) -> str:
    """Kill one process after some seconds; return which."""
    time.sleep(seconds)
    processes = sorted(clone.alive(), key=lambda process: process.pid)
    if not processes:
        return "nothing: it was done"
    victim = rng.choice(processes)
    name = _name(victim)
    victim.kill()
    return f"{name} after {seconds:.1f} s"


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:160]
    except psutil.Error:
        return "gone"

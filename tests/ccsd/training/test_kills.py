"""SIGKILL at random points of saving never leaves a folder that cannot be resumed from."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from support.trainings import KILLER, Launch, training

CHEAP = ("distillation.method=full", "train.batch_size=2", "train.steps=200", "train.warmup=0")
SAVING = ("runtime.checkpoint_every=1", "train.validate_every=200", "runtime.sinks=[]", "runtime.zero_stage=2")


def kill(inputs: Path, run: Path, trials: int, world: int, seed: int) -> list[dict[str, object]]:
    words = ["train", "--config", str(inputs / "tiny.yaml"), "--data", str(inputs / "data"), "--run", str(run)]
    words += [word for setting in (*CHEAP, *SAVING) for word in ("--set", setting)]
    command = [sys.executable, str(KILLER), str(trials), str(world), str(seed), *words]
    done = subprocess.run(
        command, env=os.environ | {"DS_ACCELERATOR": "cpu"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "damaged" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def check(launch: Launch, inputs: Path, run: Path, trials: int, world: int) -> list[dict[str, object]]:
    found = kill(inputs, run, trials, world, seed=trials)
    assert len(found) == trials
    for outcome in found:
        assert sorted(outcome["codes"]) == [-9, *[1] * (world - 1)]
    steps = [outcome["latest"] for outcome in found]
    assert all(later > earlier for earlier, later in pairwise(steps)), steps
    ((ending,),) = launch(training(run, *CHEAP, *SAVING, stop_at=steps[-1] + 1))
    assert ending.code == 75, ending.text
    assert f"resuming from step {steps[-1]}" in ending.text
    return found


@pytest.mark.slow
def test_a_process_killed_while_saving(launch: Launch, inputs: Path, tmp_path: Path) -> None:
    check(launch, inputs, tmp_path, trials=2, world=1)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_fifty_kills_of_two_processes(launch: Launch, inputs: Path, tmp_path: Path) -> None:
    found = check(launch, inputs, tmp_path, trials=50, world=2)
    assert any(outcome["unfinished"] for outcome in found), "no kill fell into the writing"
    assert max(outcome["noticed_s"] for outcome in found) < 60

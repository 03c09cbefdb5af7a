"""A small converted cohort, and trainings on several processes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from preprocess.convert import convert
from preprocess.phantom import write_cohort
from preprocess.splits import make_split

DRIVER = Path(__file__).with_name("driver.py")
CONFIG = """\
name: tiny
phantom: {cases: 8, size: 32}
model: {width: 4, levels: 2}
distillation: {every_n: 2}
train:
  steps: 6
  batch_size: 2
  patch: [16, 16, 16]
  precision: fp32
  learning_rate: 1.0e-3
  checkpoint_every: 4
  validate_every: 3
  validate_subsets: [flair+t1+t1ce+t2, t2]
  workers: 0
"""

Train = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `data` and `tiny.yaml`."""
    root = tmp_path_factory.mktemp("cohort")
    list(write_cohort(root / "phantoms", cases=8, size=32, seed=0, difficulty=0.2))
    convert(root / "phantoms", root / "data")
    make_split(root / "data", val=0.2)
    (root / "tiny.yaml").write_text(CONFIG)
    return root


@pytest.fixture
def train(cohort: Path) -> Train:
    """Run `ccsd train` on `world` processes and return the first process's result.

    `stop_at` sends SIGTERM to the last process after that many steps.
    """

    def run(run: Path, *settings: str, world: int = 1, stop_at: int = -1) -> "subprocess.CompletedProcess[str]":
        words = ["train", "--config", str(cohort / "tiny.yaml"), "--data", str(cohort / "data"), "--run", str(run)]
        for setting in settings:
            words += ["--set", setting]
        return _start(words, world, stop_at)

    return run


def _start(words: Sequence[str], world: int, stop_at: int) -> "subprocess.CompletedProcess[str]":
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, str(DRIVER), str(stop_at if rank == world - 1 else -1), *words],
            env=os.environ
            | {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        outputs = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = {process.returncode for process in processes}
    assert len(codes) == 1, outputs
    return subprocess.CompletedProcess(words, codes.pop(), outputs[0])

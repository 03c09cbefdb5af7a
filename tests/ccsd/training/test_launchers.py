"""`ccsd train` under torchrun and under a bare srun takes rank and rendezvous from them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from comparing import WEIGHT, assert_close, weights
from plain import plain_training

from ccsd.config import load_config
from ccsd.model import load_model

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
SRUN = ["srun", "--nodes", "2", "--ntasks-per-node", "1", "--kill-on-bad-exit"]


def train_under(launcher: list[str], cohort: Path, run: Path) -> subprocess.CompletedProcess[str]:
    train = [sys.executable, "-m", "ccsd", "train", "--config", str(cohort / "tiny.yaml")]
    one_machine = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu"}
    return subprocess.run(
        [*launcher, "--", *train, "--data", str(cohort / "data"), "--run", str(run)],
        env=os.environ | one_machine, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def assert_trained_together(cohort: Path, run: Path) -> None:
    _, final = plain_training(load_config(cohort / "tiny.yaml"), cohort / "data")
    assert_close(final, weights(run), WEIGHT)
    assert load_model(run).record.processes == 2


@pytest.mark.slow
def test_torchrun(cohort: Path, tmp_path: Path) -> None:
    done = train_under(TORCHRUN, cohort, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_trained_together(cohort, tmp_path)


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
def test_srun_on_two_nodes(cohort: Path, tmp_path: Path) -> None:
    done = train_under(SRUN, cohort, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_trained_together(cohort, tmp_path)

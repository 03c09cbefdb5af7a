"""The launcher where sacct answers: it knows jobs that squeue has forgotten."""

import getpass
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.processes import Launcher, eventually

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(200)]

SLURM = ("cluster=slurm", "partition=cpu", "mem_gb=0.1")
FORGETFUL = """\
#!/bin/sh
test -e {folder}/forgotten || exec {program} "$@"
case "$*" in *"-j "*) echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1;; esac
exec {program} "$@"
"""


@pytest.fixture
def on_cluster(slurm_with_accounting: Path, launcher: Launcher) -> Iterator[Callable[..., str]]:
    """Return a function that calls a command of the cluster, which then has no limits and no jobs again."""
    programs = slurm_with_accounting / "bin"
    launcher.environment["PATH"] = f"{programs}:{os.environ['PATH']}"

    def call(program: str, *words: str) -> str:
        return subprocess.run([str(programs / program), *words], capture_output=True, text=True, check=True).stdout

    yield call
    call("sacctmgr", "-i", "modify", "user", getpass.getuser(), "set", "MaxSubmitJobs=-1")
    call("scancel", "--me")
    eventually(lambda: not call("squeue", "-h"), 30)


def test_where_no_more_jobs_are_taken_it_waits_says_so_and_can_be_ended(
    on_cluster: Callable[..., str], tmp_path: Path, launcher: Launcher
) -> None:
    on_cluster("sacctmgr", "-i", "modify", "user", getpass.getuser(), "set", "MaxSubmitJobs=1")
    long = on_cluster("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600").strip()
    for number in (signal.SIGINT, signal.SIGTERM):
        stopped = launcher.start("pass", tmp_path / "run", *SLURM)
        assert stopped.stdout is not None
        assert "accepts no more of your jobs for now (AssocMaxSubmitJobLimit); next attempt at" in (
            stopped.stdout.readline()
        )
        begun = time.monotonic()
        stopped.send_signal(number)
        stopped.communicate(timeout=20)
        assert (stopped.returncode, time.monotonic() - begun < 3) == (130, True)
    patient = launcher.start("pass", tmp_path / "run", *SLURM)
    assert patient.stdout is not None
    patient.stdout.readline()
    on_cluster("scancel", long)
    _, err = patient.communicate(timeout=60)
    assert patient.returncode == 0, err


def test_a_limit_that_no_waiting_changes_is_reported_at_once(
    on_cluster: Callable[..., str], tmp_path: Path, launcher: Launcher
) -> None:
    strict = ("strict", "set", "MaxWall=00:10:00", "Flags=DenyOnLimit")
    on_cluster("sacctmgr", "-i", "add", "qos", strict[0])
    on_cluster("sacctmgr", "-i", "modify", "qos", *strict)
    on_cluster("sacctmgr", "-i", "modify", "user", getpass.getuser(), "set", "qos+=strict")
    begun = time.monotonic()
    done = launcher.run("pass", tmp_path / "run", *SLURM, "qos=strict", "timeout_min=2:00:00")
    assert done.returncode == 1
    assert "sbatch rejected the job:\nsbatch: error: QOSMaxWallDurationPerJobLimit" in done.stderr
    assert time.monotonic() - begun < 20


def test_a_job_that_ended_after_squeue_forgot_it_is_reported_by_sacct(
    slurm_with_accounting: Path, tmp_path: Path, launcher: Launcher
) -> None:
    programs = slurm_with_accounting / "bin"
    front = tmp_path / "front/squeue"
    front.parent.mkdir()
    front.write_text(FORGETFUL.format(folder=tmp_path, program=programs / "squeue"))
    front.chmod(0o755)
    launcher.environment["PATH"] = f"{front.parent}:{programs}:{os.environ['PATH']}"
    process = launcher.start("import time; time.sleep(600)", tmp_path / "run", *SLURM)
    eventually((tmp_path / "run/001/rank-0.json").exists, 60)
    job = next((tmp_path / "run/001").glob("*_submitted.pkl")).name.partition("_")[0]
    (tmp_path / "forgotten").touch()
    subprocess.run([str(programs / "scancel"), job], check=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"job {job} failed (CANCELLED)" in err

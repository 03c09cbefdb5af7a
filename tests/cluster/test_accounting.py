"""The launcher where sacct answers: it knows jobs that squeue has forgotten."""

import os
import subprocess
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


def test_a_job_that_ended_after_squeue_forgot_it_is_told_by_sacct(
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

"""The profile uses sacct where it responds. A stand-in writes each stage's files."""

import getpass
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.processes import eventually
from support.projects import Project

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

ON_SLURM = (
    "--profile", "slurm", "--configfile", "study.yaml", "--max-status-checks-per-second", "1",
    "--seconds-between-status-checks", "1", "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10",
    "--until", "split", "--set-resources", "convert:mem_mb=100",
)  # fmt: skip
HOLD = """\
#!/bin/bash
while [ "$1" = {stage} ] && [ -e {folder}/hold ]; do sleep 0.1; done
exec {folder}/bin/ccsd "$@"
"""
SACCT = """\
#!/bin/sh
echo "$*" >> {folder}/sacct-calls.txt
exec {program} "$@"
"""


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_the_workflow_asks_sacct_and_submits_a_cancelled_job_again(
    slurm_with_accounting: Path, project: Callable[..., Project]
) -> None:
    slurm, clone = slurm_with_accounting / "bin", project()
    clone.configure(phantom={"cases": 5})
    _program(clone.folder / "front/ccsd", HOLD.format(folder=clone.folder, stage="convert"))
    _program(clone.folder / "front/sacct", SACCT.format(folder=clone.folder, program=slurm / "sacct"))
    clone.environment["PATH"] = f"{clone.folder}/front:{slurm}:{clone.environment['PATH']}"
    (clone.folder / "hold").touch()

    def running() -> list[str]:
        queue = [str(slurm / "squeue"), "-h", "-t", "R", "-o", "%A|%k"]
        listed = subprocess.run(queue, capture_output=True, text=True, check=True).stdout
        return [line.partition("|")[0] for line in listed.splitlines() if "rule_convert" in line]

    snakemake = clone.start(*ON_SLURM)
    eventually(running, 90)
    cancelled = running()
    subprocess.run([str(slurm / "scancel"), *cancelled], check=True)
    (clone.folder / "hold").unlink()
    snakemake.end(200)

    asked = (clone.folder / "sacct-calls.txt").read_text()
    assert "--name ccsd_" in asked, "the executor asks sacct for its jobs"
    jobs = subprocess.run(
        [str(slurm / "sacct"), "-X", "-n", "-P", "-o", "State,Comment"], capture_output=True, text=True, check=True
    ).stdout
    states = [line.split("|")[0].split()[0] for line in jobs.splitlines() if "rule_convert" in line]
    assert sorted(states) == ["CANCELLED", "COMPLETED"]


def test_where_no_more_jobs_are_taken_the_workflow_says_so_and_ends_on_term(
    slurm_with_accounting: Path, project: Callable[..., Project]
) -> None:
    slurm, clone = slurm_with_accounting / "bin", project()
    clone.configure(phantom={"cases": 5})
    clone.environment["PATH"] = f"{slurm}:{clone.environment['PATH']}"
    limit = [str(slurm / "sacctmgr"), "-i", "modify", "user", getpass.getuser(), "set"]
    subprocess.run([*limit, "MaxSubmitJobs=1"], check=True, stdout=subprocess.DEVNULL)
    occupant = [str(slurm / "sbatch"), "--parsable", "-o", "/dev/null", "--wrap", "sleep 600"]
    long = subprocess.run(occupant, capture_output=True, text=True, check=True).stdout.strip()
    words = "rule_phantom: SLURM accepts no more of your jobs for now (AssocMaxSubmitJobLimit); next attempt at"
    try:
        ended = clone.start(*ON_SLURM)
        eventually(lambda: words in ended.log.read_text(), 60)
        ended.process.terminate()
        ended.process.wait(timeout=30)
        patient = clone.start(*ON_SLURM)
        eventually(lambda: words in patient.log.read_text(), 60)
        subprocess.run([str(slurm / "scancel"), long], check=True)
        eventually(lambda: "phantom: done" in patient.log.read_text(), 90)
    finally:
        subprocess.run([*limit, "MaxSubmitJobs=-1"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([str(slurm / "scancel"), "--me"], check=True)

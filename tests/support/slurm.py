"""A throw-away SLURM, and the script that a job is submitted with."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import sandbox
from cluster.settings import JobSettings


@contextmanager
def held_cluster(*, with_accounting: bool = False) -> Iterator[Path]:
    """Hold a throw-away cluster; skip the test, or fail in CI, where its programs are missing."""
    if absent := sandbox.missing(with_accounting=with_accounting):
        message = f"no SLURM: {', '.join(absent)} missing; {sandbox.install(with_accounting=with_accounting)}"
        if os.environ.get("REQUIRE_SLURM"):
            pytest.fail(message)
        pytest.skip(message)
    command = [sys.executable, "-m", "cluster.sandbox", "hold", *(["--accounting"] if with_accounting else [])]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    base = Path(holder.stdout.readline().strip())
    assert base.is_dir(), "the cluster did not come up"
    try:
        yield base
    finally:
        holder.terminate()
        holder.communicate(timeout=60)


def batch_script(settings: JobSettings, name: str, folder: Path, python: str = sys.executable) -> str:
    """Return the text of a job's batch script."""
    from submitit.slurm.slurm import _make_sbatch_string

    from cluster.submit import parameters

    command = f"{shlex.quote(python)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return str(_make_sbatch_string(command=command, folder=folder, **parameters(settings, name)))

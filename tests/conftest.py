"""Settings for all tests: one thread, no GPU unless there is one, nothing written outside the temporary folder."""

import os
import shlex

os.environ["OMP_NUM_THREADS"] = "1"

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cluster import sandbox
from cluster.settings import JobSettings

# A limit of time per example measures the load of the machine, not the code.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).parents[1]

if shutil.which("nvidia-smi") is None:
    # Without it DeepSpeed looks for CUDA and fails on import.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


# A shell starts background jobs with SIGINT ignored, which they pass on: tests of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Point caches and settings of libraries to an empty home, so that tests neither use nor change the user's."""
    home = tmp_path_factory.mktemp("home")
    os.environ["HOME"] = str(home)
    os.environ["XDG_CACHE_HOME"] = str(home / ".cache")
    os.environ["XDG_CONFIG_HOME"] = str(home / ".config")
    os.environ["MPLCONFIGDIR"] = str(home / ".matplotlib")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def slurm() -> Iterator[Path]:
    """Return the folder of a throw-away cluster; its commands are first on the PATH.

    A process of its own holds the cluster and takes it down even when the tests are killed.
    """
    with held_cluster() as base:
        path = os.environ["PATH"]
        os.environ.update(sandbox.environment(base))
        yield base
        os.environ["PATH"] = path


@pytest.fixture(scope="session")
def slurm_with_accounting() -> Iterator[Path]:
    """Return the folder of a throw-away cluster whose sacct answers; its commands are not on the PATH."""
    with held_cluster(with_accounting=True) as base:
        yield base


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


@pytest.fixture(scope="session")
def batch_script() -> Callable[..., str]:
    """Return a function that gives the text of a job's batch script."""
    from submitit.slurm.slurm import _make_sbatch_string

    from cluster.submit import parameters

    def script(settings: JobSettings, name: str, folder: Path, python: str = sys.executable) -> str:
        command = f"{shlex.quote(python)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
        return str(_make_sbatch_string(command=command, folder=folder, **parameters(settings, name)))

    return script


def wait_for(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """Return a function that waits until a condition holds and returns what it gave."""
    return wait_for

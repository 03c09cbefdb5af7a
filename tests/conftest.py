"""Settings for all tests: one thread, no GPU unless there is one, nothing written outside the temporary folder."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from cluster import sandbox
from support.slurm import held_cluster
from support.tasks import GLIOMA

# A limit of time per example measures the load of the machine, not the code.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

if shutil.which("nvidia-smi") is None:
    # Without it DeepSpeed looks for CUDA and fails on import.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Runs kernels on the CPU; Triton reads it when it is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")


# A shell starts background jobs with SIGINT ignored, nohup everything with SIGHUP, which they pass on: tests of Ctrl-C
# and of closed terminals would wait forever.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Point caches and settings of libraries to an empty home, so that tests neither use nor change the user's."""
    home = tmp_path_factory.mktemp("home")
    os.environ["HOME"] = str(home)
    os.environ["XDG_CACHE_HOME"] = str(home / ".cache")
    os.environ["XDG_CONFIG_HOME"] = str(home / ".config")
    os.environ["MPLCONFIGDIR"] = str(home / ".matplotlib")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six phantoms of 32 voxels, three in each naming; do not change them."""
    from preprocess.phantom.cohort import write_cohort

    folder = tmp_path_factory.mktemp("cohort")
    list(write_cohort(folder, cases=6, size=32, seed=1, task=GLIOMA))
    return folder


@pytest.fixture(scope="session")
def data(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores of the cohort, with their tables and a split; do not change them."""
    from preprocess.convert import convert
    from preprocess.splits import make_split

    folder = tmp_path_factory.mktemp("data")
    convert(cohort, folder, task=GLIOMA)
    make_split(folder, val=0.2)
    return folder


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

"""Settings for all tests: one thread, no GPU unless there is one, nothing written outside the temporary folder."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

if shutil.which("nvidia-smi") is None:
    # Without it DeepSpeed looks for CUDA and fails on import.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


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

"""Two untrained runs and what they are packed into; do not change them."""

from pathlib import Path

import pytest

from ccsd.packed.pack import pack
from support.runs import config_of, write_run


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the folders of two runs of an experiment, as a study has them."""
    runs = tmp_path_factory.mktemp("packed") / "results" / "mine" / "runs"
    for seed in (0, 1):
        write_run(runs / f"ours-s{seed}", config_of(seed=seed), seed, experiment="ours", steps=9)
    return sorted(runs.iterdir())


@pytest.fixture(scope="session")
def single(seeds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one model as a file."""
    return pack(seeds[:1], tmp_path_factory.mktemp("single") / "single.ccsd").path


@pytest.fixture(scope="session")
def both(seeds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two models as one file."""
    return pack(seeds, tmp_path_factory.mktemp("both") / "both.ccsd").path

"""A small converted cohort for the tests of `ccsd.data`."""

from pathlib import Path

import pytest

from preprocess.convert import convert
from preprocess.phantom.cohort import write_cohort


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of six phantoms of 32 voxels; do not change them."""
    source, dest = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("data")
    list(write_cohort(source, cases=6, size=32, seed=1))
    convert(source, dest)
    return dest


def _convert_one(folder: Path, endings: tuple[str, ...]) -> Path:
    """Convert one phantom of which only the files with these endings are kept."""
    list(write_cohort(folder / "cohort", cases=1, size=32, seed=5))
    (case,) = (path for path in (folder / "cohort").iterdir() if path.is_dir())
    (folder / "src").mkdir()
    for ending in endings:
        (folder / f"src/lonely_{ending}.nii.gz").write_bytes((case / f"{case.name}_{ending}.nii.gz").read_bytes())
    convert(folder / "src", folder / "dest", labels="brats2020")
    return folder / "dest"


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """A store of a case that has FLAIR and T1ce only."""
    return _convert_one(tmp_path, ("flair", "t1ce", "seg"))


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """A store of a case without a segmentation."""
    return _convert_one(tmp_path, ("flair", "t1", "t1ce", "t2"))

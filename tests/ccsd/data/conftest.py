"""Cases that lack something."""

from pathlib import Path

import pytest

from preprocess.convert import convert
from support.tasks import GLIOMA

CASE = "BraTS20_Training_001"


def _convert_one(cohort: Path, folder: Path, endings: tuple[str, ...]) -> Path:
    """Convert one phantom of which only the files with these endings are kept."""
    (folder / "src").mkdir()
    for ending in endings:
        (folder / f"src/lonely_{ending}.nii.gz").symlink_to(cohort / CASE / f"{CASE}_{ending}.nii.gz")
    convert(folder / "src", folder / "dest", labels="brats2020", task=GLIOMA)
    return folder / "dest"


@pytest.fixture
def partial(cohort: Path, tmp_path: Path) -> Path:
    """A store of a case that has FLAIR and T1ce only."""
    return _convert_one(cohort, tmp_path, ("flair", "t1ce", "seg"))


@pytest.fixture
def unlabelled(cohort: Path, tmp_path: Path) -> Path:
    """A store of a case without a segmentation."""
    return _convert_one(cohort, tmp_path, ("flair", "t1", "t1ce", "t2"))

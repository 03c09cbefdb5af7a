"""The model that comes along: it is small, says what it is, and finds tumours of phantoms with any sequences."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from ccsd.inference.predict import predict
from ccsd.packed.archive import read
from ccsd.packed.find import SHIPPED
from preprocess.phantom.cohort import write_cohort
from support.tasks import GLIOMA

FILE = SHIPPED / "phantom.ccsd"


def test_it_is_small_whole_and_says_that_it_is_of_no_use_on_patients() -> None:
    packed = read(FILE)
    packed.check()
    assert FILE.stat().st_size < 1_000_000
    assert packed.manifest.task == GLIOMA.label
    assert packed.manifest.dice["WT"] > 0.7
    assert "**Of no use on patients:** it was trained on computed phantoms alone." in packed.card
    assert "Not for clinical use" in packed.card


def test_it_finds_the_tumour_of_a_phantom_that_it_does_not_know(tmp_path: Path) -> None:
    list(write_cohort(tmp_path / "cases", cases=1, size=64, seed=7, task=GLIOMA, difficulty=0.3))
    (folder,) = (path for path in (tmp_path / "cases").iterdir() if path.is_dir())
    reference = np.asarray(nib.load(folder / f"{folder.name}_seg.nii.gz").dataobj) > 0
    for absent, least in ((), 0.8), (("t1ce", "t2"), 0.7):
        case = Path(shutil.copytree(folder, tmp_path / f"without-{'-'.join(absent)}" / folder.name))
        for name in absent:
            (case / f"{folder.name}_{name}.nii.gz").unlink()
        (outcome,) = predict([case], case.parent / "out", "phantom")
        assert outcome.error is None
        found = np.asarray(nib.load(outcome.path).dataobj) > 0
        assert 2 * (found & reference).sum() / (found.sum() + reference.sum()) > least

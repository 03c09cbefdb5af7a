"""Leaks of test cases and mixed tasks are reported, or rejected before a file is written."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from preprocess.convert import convert
from preprocess.dataset import PATIENTS_FILE, shared_images, what_stands_out, write_tables
from preprocess.errors import InputError
from preprocess.splits import make_split
from preprocess.store.reader import list_cases
from preprocess.task import reject_mixture
from support.tasks import GLIOMA, changed, task_of


def write_anew(source: Path, target: Path) -> None:
    """Write an image as float64, with its axes in another order and direction."""
    target.parent.mkdir(parents=True, exist_ok=True)
    image = nib.as_closest_canonical(nib.load(source))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj, np.float64), image.affine), target)


@pytest.fixture
def twice(cohort: Path, tmp_path: Path) -> Path:
    """Two cases, and a copy of one under another name in files with different bytes."""
    src = tmp_path / "src"
    for case, name in (("BraTS20_Training_001", "P1"), ("BraTS20_Training_001", "P9"), ("BraTS20_Training_002", "P2")):
        for ending in ("flair", "t2", "seg"):
            path = cohort / case / f"{case}_{ending}.nii.gz"
            if name == "P9":
                write_anew(path, src / name / f"{name}_{ending}.nii")
            else:
                (src / name).mkdir(parents=True, exist_ok=True)
                (src / name / f"{name}_{ending}.nii.gz").symlink_to(path)
    return src


def test_the_same_image_in_other_bytes_is_found_and_kept_together(twice: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    convert(twice, dest, task=GLIOMA, labels="brats2020")
    metas = write_tables(dest)
    assert shared_images(metas) == [["P1", "P9"]]
    assert what_stands_out(dest, metas, metas) == ["the same image in several cases: P1, P9"]
    split, notes = make_split(dest, train=0.5, val=0)
    assert any({"P1", "P9"} <= set(part) for part in split.by_name.values())
    assert "the same image in several cases: P1, P9" in notes


def test_cases_that_the_source_no_longer_has_are_told(twice: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    convert(twice, dest, task=GLIOMA, labels="brats2020")
    (twice / "P9").rename(twice / "P3")
    for path in (twice / "P3").iterdir():
        path.rename(path.with_name(path.name.replace("P9", "P3")))
    convert(twice, dest, task=GLIOMA, labels="brats2020")
    _, notes = make_split(dest, train=0.5, val=0)
    assert f"not in this source, but still in {dest}: P9; delete the stores that are no longer wanted" in notes


def test_another_task_is_rejected_before_anything_is_written(twice: Path, tmp_path: Path) -> None:
    dest, other = tmp_path / "dest", task_of("flair", "t2", name="two")
    convert(twice, dest, task=GLIOMA, labels="brats2020")
    before = {path: path.stat().st_mtime_ns for path in dest.rglob("*")}
    with pytest.raises(InputError, match="contains cases of the task brats-gli-pre, not two"):
        convert(twice, dest, task=other, labels="brats2023")
    assert {path: path.stat().st_mtime_ns for path in dest.rglob("*")} == before


def test_a_task_that_was_changed_under_its_name_replaces_its_cases(twice: Path, tmp_path: Path) -> None:
    dest, task = tmp_path / "dest", task_of("flair", "t2", numbering={"brats2023": {"NCR": 1, "ED": 2, "ET": 4}})
    convert(twice, dest, task=task, labels="brats2023")
    again = changed(task, sequences={"t2": "T2", "flair": "FLAIR"})
    assert {item.status for item in convert(twice, dest, task=again, labels="brats2023")} == {"converted"}
    assert len(list_cases(dest)) == 3


def test_one_convention_with_two_meanings_is_rejected() -> None:
    other = changed(GLIOMA, numbering={**GLIOMA.numbering, "brats2020": {"NCR": 2, "ED": 1, "ET": 4}})
    with pytest.raises(InputError, match="b and a belong to tasks that differ in the numbers of brats2020"):
        reject_mixture([("a", GLIOMA), ("b", other)])


def test_a_table_of_patients_is_kept(twice: Path, tmp_path: Path) -> None:
    dest, table = tmp_path / "dest", tmp_path / "table.csv"
    convert(twice, dest, task=GLIOMA, labels="brats2020")
    table.write_text("case,patient,site\nP1,X,A\nP2,X,B\n")
    listed = tmp_path / "list.tsv"
    listed.write_text("case\tsplit\nP1\ttrain\nP2\ttrain\nP9\ttrain\n")
    _, notes = make_split(dest, listed=listed, patients=table)
    assert any("patient taken from the layout or the name: P9" in note for note in notes)
    convert(twice, dest, task=GLIOMA, labels="brats2020")
    write_tables(dest)
    assert "\tA\n" in (dest / "cases.tsv").read_text()
    assert (dest / PATIENTS_FILE).is_file()


def test_names_that_look_like_scans_of_one_patient_are_told(twice: Path, tmp_path: Path) -> None:
    for old, new in (("P1", "A_week1"), ("P2", "A_week2")):
        (twice / old).rename(twice / new)
        for path in (twice / new).iterdir():
            path.rename(path.with_name(path.name.replace(old, new)))
    dest = tmp_path / "dest"
    convert(twice, dest, task=GLIOMA, labels="brats2020")
    _, notes = make_split(dest, train=0.5, val=0)
    assert "names look like scans of one patient: A_week1, A_week2; --patients assigns them" in notes

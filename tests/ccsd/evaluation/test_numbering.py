"""`ccsd evaluate --pred --ref`: only tumours are cases, and label numbers are read as the names of cases show."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ccsd.errors import UsageError
from ccsd.evaluation import read_metrics
from ccsd.evaluation.folders import evaluate_folders
from ccsd.evaluation.segmentations import find_segmentations
from preprocess.task import shipped_tasks
from support.tasks import GLIOMA


def write(path: Path, *values: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((20, 18, 16), np.float32)
    for number, value in enumerate(values):
        array[3 + 4 * number : 7 + 4 * number, 4:9, 4:9] = value
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


Folders = tuple[Path, Path, Path]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return tmp_path / "pred", tmp_path / "ref", tmp_path / "out"


def test_masks_of_the_brain_are_no_references(tmp_path: Path) -> None:
    for name in ("tumor", "brain", "brain_parenchyma"):
        write(tmp_path / "UCSF-PDGM-0004_nifti" / f"UCSF-PDGM-0004_{name}_segmentation.nii.gz", 1)
    for name in ("P1_seg", "P1_brain_mask", "P1_t1_bet_mask"):
        write(tmp_path / "P1" / f"{name}.NII.GZ", 1)
    assert sorted(find_segmentations(tmp_path, GLIOMA)) == ["P1", "UCSF-PDGM-0004"]


def test_one_prediction_is_never_scored_twice(folders: Folders) -> None:
    pred, ref, out = folders
    write(pred / "A.nii.gz", 4)
    for name in ("A_rater1", "A_rater2"):
        write(ref / f"{name}.nii.gz", 4)
    with pytest.raises(UsageError, match=r"A\.nii\.gz matches the references A_rater1 and A_rater2; keep one"):
        evaluate_folders(pred, ref, out, GLIOMA)


def test_the_prediction_of_another_reference_is_not_taken(folders: Folders) -> None:
    pred, ref, out = folders
    write(pred / "A_later.nii.gz", 4)
    for name in ("A", "A_later"):
        write(ref / f"{name}.nii.gz", 4)
    table = read_metrics(evaluate_folders(pred, ref, out, GLIOMA, partial=True, ref_labels="brats2020"))
    assert set(table["case"]) == {"A_later"}


def test_each_case_is_read_in_the_numbers_of_its_layout(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    pred, ref, out = folders
    for case, enhancing in (("BraTS20_Training_001", 4), ("BraTS-GLI-00000-000", 3)):
        write(pred / f"{case}.nii.gz", 1, 2, enhancing)
        write(ref / case / f"{case}{'_' if enhancing == 4 else '-'}seg.nii.gz", 1, 2, enhancing)
    assert (read_metrics(evaluate_folders(pred, ref, out, GLIOMA))["dice"] == 1).all()
    assert "--ref-labels: 1 file read as brats2023" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("case", "values", "words"),
    [
        ("A", (1, 2, 4), "by convention: brats2020 .*brats2024 .*; name the convention: --ref-labels brats2023"),
        ("A", (1, 2), "A.nii.gz: neither the layout nor an option says what its label numbers mean"),
        ("BraTS-PED-00001-000", (1, 2, 4), "its name does not show its label convention"),
        ("sub-01", (1, 2, 4), "its name does not show its label convention"),
    ],
)
def test_numbers_that_nobody_explains_are_asked_for(
    folders: Folders, case: str, values: tuple[int, ...], words: str
) -> None:
    pred, ref, out = folders
    for folder in (pred, ref):
        write(folder / f"{case}.nii.gz", *values)
    with pytest.raises(UsageError, match=words):
        evaluate_folders(pred, ref, out, GLIOMA)
    evaluate_folders(pred, ref, out, GLIOMA, pred_labels="brats2024", ref_labels="brats2024")


def test_numbers_are_never_told_by_values_where_there_is_a_choice_of_one(folders: Folders) -> None:
    pred, ref, out = folders
    for folder in (pred, ref):
        write(folder / "A.nii.gz", 1, 2, 3)
    with pytest.raises(UsageError, match="name the convention: --ref-labels brats2023"):
        evaluate_folders(pred, ref, out, shipped_tasks()["brats-men"])


def test_a_layout_of_ones_own_says_the_numbers(folders: Folders) -> None:
    pred, ref, out = folders
    layout = ref.parent / "own.yaml"
    layout.write_text(
        'case: "P[0-9]+"\nnumbering: brats2024\nfiles: {t1: "{case}/{case}_t1", segmentation: "{case}/{case}_truth"}\n'
    )
    write(pred / "P1.nii.gz", 1, 2, 4)
    write(ref / "P1/P1_truth.nii.gz", 1, 2, 4)
    table = read_metrics(evaluate_folders(pred, ref, out, GLIOMA, layout=str(layout))).set_index("region")
    assert (table["dice"] == 1).all()
    assert table.loc["ET", "reference_mm3"] == 0  # 4 is the cavity


def test_files_of_another_format_are_named(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    pred, ref, out = folders
    write(pred / "A.nii.gz", 4)
    write(ref / "A.nii.gz", 4)
    (ref / "B_seg.mha").touch()
    evaluate_folders(pred, ref, out, GLIOMA, ref_labels="brats2020")
    assert f"not read, because the format is not NIfTI: {ref / 'B_seg.mha'}" in capsys.readouterr().err


def test_values_near_whole_numbers_are_rounded_and_told(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    pred, ref, out = folders
    write(pred / "A.nii.gz", 1, 2, 3.9996)
    write(ref / "A.nii.gz", 1, 2, 4)
    assert (read_metrics(evaluate_folders(pred, ref, out, GLIOMA, ref_labels="brats2020"))["dice"] == 1).all()
    assert "A.nii.gz: label values were not whole numbers" in capsys.readouterr().err

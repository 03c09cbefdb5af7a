"""`ccsd evaluate --pred --ref`: any naming, any labels, any orientation; and what is rejected."""

import json

import nibabel as nib
import numpy as np
import pytest

from ccsd.config import Evaluation
from ccsd.errors import UsageError
from ccsd.evaluation import folders as module
from ccsd.evaluation import read_metrics
from ccsd.evaluation.segmentations import case_name
from ccsd.evaluation.tables import mean_dice
from preprocess.errors import InputError
from support.tasks import GLIOMA

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def write(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.astype(np.uint8), affine), path)


def tumour(enhancing=4):
    array = np.zeros((20, 18, 16))
    array[4:14, 4:14, 4:12] = 2
    array[6:12, 6:12, 5:10] = 1
    array[8:10, 8:10, 6:9] = enhancing
    return array


def evaluate_folders(*arguments, ref_labels="brats2020", **options):
    return module.evaluate_folders(*arguments, ref_labels=ref_labels, **options)


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "pred", tmp_path / "ref", tmp_path / "out"


def dice(path):
    table = read_metrics(path)
    return {(row.case, row.region): row.dice for row in table.itertuples()}


@pytest.mark.parametrize(
    ("pred_name", "ref_name"),
    [
        ("A_1.nii.gz", "A_1/A_1_seg.nii.gz"),
        ("A_1_pred.nii", "A_1-seg.nii.gz"),
        ("A_1_ensemble_3.nii.gz", "A_1.nii"),
        ("A_1/pred.nii.gz", "A_1/seg.nii.gz"),
    ],
)
def test_files_are_matched_whatever_their_names(folders, pred_name, ref_name):
    pred, ref, out = folders
    write(pred / pred_name, tumour())
    write(ref / ref_name, tumour())
    write(ref / "A_1" / "A_1_t1ce.nii.gz", tumour())

    assert set(dice(evaluate_folders(pred, ref, out, GLIOMA)).values()) == {1.0}


def test_labels_and_orientation_may_differ_between_the_folders(folders):
    pred, ref, out = folders
    write(ref / "A.nii.gz", tumour(4))
    turned = np.flip(tumour(3), (0, 1)).transpose(1, 2, 0)
    affine = np.array([[0, 0, -1, 19], [-1, 0, 0, 17], [0, 2, 0, 0], [0, 0, 0, 1]], float)
    write(pred / "A.nii.gz", turned, affine)
    table = read_metrics(evaluate_folders(pred, ref, out, GLIOMA, pred_labels="brats2023"))
    identity = json.loads((out / "evaluation.json").read_text())["identity"]

    assert (table["dice"] == 1).all()
    assert identity["prediction_labels"].startswith("brats2023")
    assert identity["reference_labels"].startswith("brats2020")
    assert table.set_index("region").loc["ET", "reference_mm3"] == 2 * 2 * 3 * 2


def test_msd_labels_are_read_as_such_when_named(folders):
    pred, ref, out = folders
    array = tumour(3)
    write(ref / "A.nii.gz", array)
    swapped = np.select([array == 1, array == 2], [2, 1], array)
    write(pred / "A.nii.gz", swapped)

    assert (
        dice(evaluate_folders(pred, ref, out, GLIOMA, pred_labels="brats2023", ref_labels="brats2023"))["A", "TC"] < 1
    )
    assert dice(evaluate_folders(pred, ref, out, GLIOMA, pred_labels="msd", ref_labels="brats2023"))["A", "TC"] == 1


def test_folders_named_after_combinations_are_scored_as_such(folders):
    pred, ref, out = folders
    write(ref / "A.nii.gz", tumour())
    write(pred / "t1ce" / "A.nii.gz", tumour())
    write(pred / "flair+t2" / "A.nii.gz", np.zeros((20, 18, 16)))
    table = read_metrics(evaluate_folders(pred, ref, out, GLIOMA)).set_index(["subset", "region"])

    assert table.loc[("t1ce", "WT"), "dice"] == 1
    assert table.loc[("flair+t2", "WT"), "dice"] == 0
    assert table.loc[("flair+t2", "WT"), "modalities"] == 2


def test_processes_give_the_same_table(folders):
    pred, ref, out = folders
    for i in range(3):
        write(ref / f"C{i}.nii.gz", tumour())
        write(pred / f"C{i}.nii.gz", np.roll(tumour(), i, 0))
    one = evaluate_folders(pred, ref, out, GLIOMA).read_bytes()

    assert evaluate_folders(pred, ref, out / "two", GLIOMA, workers=2).read_bytes() == one


def test_policy_and_clean_up_apply_without_a_model(folders):
    pred, ref, out = folders
    without = np.where(tumour() == 4, 1, tumour())
    write(ref / "A.nii.gz", without)
    write(pred / "A.nii.gz", tumour())
    table = read_metrics(
        evaluate_folders(pred, ref, out, GLIOMA, Evaluation(hd95_penalty=7, cleanup=True), ref_labels="brats2020")
    )
    row = table.set_index("region").loc["ET"]

    assert (row["dice"], row["hd95"], row["empty"], row["dice_clean"]) == (0, 7, "reference", 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p, r: write(r / "B.nii.gz", tumour()), "1 of 2 references have no prediction.*B"),
        (lambda p, r: write(p / "A.nii.gz", tumour()[1:]), "19 x 18 x 16 voxels.*20 x 18 x 16"),
        (lambda p, r: write(p / "A.nii.gz", tumour(), np.eye(4)), "mm apart.*--ignore-affine"),
        (lambda p, r: write(p / "A.nii.gz", tumour(7)), r"pred/A\.nii\.gz: wrong label values: 7"),
        (lambda p, r: (p / "A.nii.gz").write_bytes((p / "A.nii.gz").read_bytes()[:90]), "truncated"),
        (lambda p, r: write(p / "sub" / "A_pred.nii.gz", tumour()), "two segmentations for case A"),
    ],
)
def test_what_does_not_fit_is_rejected_with_its_name_and_nothing_is_written(folders, make, words):
    pred, ref, out = folders
    write(ref / "A.nii.gz", tumour())
    write(pred / "A.nii.gz", tumour())
    make(pred, ref)
    with pytest.raises((UsageError, InputError), match=words):
        evaluate_folders(pred, ref, out, GLIOMA)
    assert not out.exists()


def test_files_with_further_axes_of_length_one_are_scored(folders):
    pred, ref, out = folders
    write(ref / "A.nii.gz", tumour())
    write(pred / "A.nii.gz", tumour()[..., None])

    assert set(dice(evaluate_folders(pred, ref, out, GLIOMA)).values()) == {1.0}


@pytest.mark.slow
def test_scoring_files_needs_no_pytorch(folders, imported_by):
    pred, ref, out = folders
    write(ref / "A.nii.gz", tumour())
    write(pred / "A.nii.gz", tumour())
    found = imported_by("evaluate", "--pred", pred, "--ref", ref, "--out", out, "--ref-labels", "brats2020")

    assert "pandas" in found
    assert not found & {"torch", "monai", "matplotlib", "deepspeed"}


def test_lost_headers_can_be_ignored(folders):
    pred, ref, out = folders
    write(ref / "A.nii.gz", tumour())
    write(pred / "A.nii.gz", tumour(), np.eye(4))
    table = read_metrics(evaluate_folders(pred, ref, out, GLIOMA, ignore_affine=True))

    assert (table["dice"] == 1).all()


def test_part_of_the_references_can_be_scored_when_asked_for(folders, capsys):
    pred, ref, out = folders
    for case in ("A", "B", "C"):
        write(ref / f"{case}.nii.gz", tumour())
    write(pred / "B.nii.gz", tumour())
    table = read_metrics(evaluate_folders(pred, ref, out, GLIOMA, partial=True))

    assert set(table["case"]) == {"B"}
    assert json.loads((out / "evaluation.json").read_text())["identity"]["cases"] == ["B"]
    assert "2 references have no prediction and are left out" in capsys.readouterr().err
    (pred / "B.nii.gz").rename(pred / "D.nii.gz")
    with pytest.raises(UsageError, match=r"3 of 3 references have no prediction.*A, B, C.*found: D"):
        evaluate_folders(pred, ref, out, GLIOMA, partial=True)


def test_scores_are_shown_as_means(folders):
    pred, ref, out = folders
    for case, value in (("A", 4), ("B", 0)):
        write(ref / f"{case}.nii.gz", tumour())
        write(pred / "t2" / f"{case}.nii.gz", tumour() * (value // 4))
    shown = mean_dice(read_metrics(evaluate_folders(pred, ref, out, GLIOMA)))

    assert [line.split() for line in shown.splitlines()] == [
        ["mean", "Dice", "over", "2", "cases"], ["WT", "TC", "ET"], ["t2", "0.500", "0.500", "0.500"]
    ]  # fmt: skip


def test_missing_folder_and_empty_folder_are_named(folders):
    pred, ref, out = folders
    ref.mkdir()
    with pytest.raises(UsageError, match="ref: no segmentation found"):
        evaluate_folders(pred, ref, out, GLIOMA)
    write(ref / "A.nii.gz", tumour())
    with pytest.raises(UsageError, match="pred: no such folder"):
        evaluate_folders(pred, ref, out, GLIOMA)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("x/BraTS20_Training_001_seg.nii.gz", "BraTS20_Training_001"),
        ("x/BraTS-GLI-00002-000-seg.nii.gz", "BraTS-GLI-00002-000"),
        ("x/BraTS20_Training_001_flair.nii", None),
        ("x/BraTS-GLI-00002-000-t2w.nii", None),
        ("case7/segmentation.nii.gz", "case7"),
        ("x/W39_1998.09.19_Segm.nii", "W39_1998.09.19"),
    ],
)
def test_case_names(name, case, tmp_path):
    assert case_name(tmp_path / name, GLIOMA) == case

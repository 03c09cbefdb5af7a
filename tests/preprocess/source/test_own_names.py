"""Names without a layout: what may mean contrast, another case or no tumour is rejected or ignored, and reported."""

from pathlib import Path

import pytest

from preprocess.source.layouts import ORPHAN, UNKNOWN, discover, survey
from support.sources import roles, touch
from support.tasks import GLIOMA, SEQUENCES

CONTRAST = "may be T1 with or without contrast"
TORN = "may be one case or two"
NAMELESS = "does not show which case this belongs to"
OPEN = {
    "inside a word": (CONTRAST, ["P1/P1_postGd_T1", "P1/P1_T2", "P1/P1_FLAIR"]),
    "German": (CONTRAST, ["P1/P1_km_T1", "P1/P1_T1", "P1/P1_T2"]),
    "plus": (CONTRAST, ["P1/P1_C+_T1", "P1/P1_T1", "P1/P1_T2"]),
    "enhanced": (CONTRAST, ["P1/P1_enhanced_T1", "P1/P1_T2", "P1/P1_FLAIR"]),
    "the same sequence twice": (CONTRAST, ["P1/P1_km_T1", "P1/P1_T1"]),
    "first word": (CONTRAST, ["postGd_P1_T1", "postGd_P1_T2"]),
    "acquisition": (CONTRAST, ["sub-01_acq-postgd_T1w", "sub-01_T2w"]),
    "acquisition beside T1ce": (CONTRAST, ["sub-01_acq-postgd_T1w", "sub-01_ce-gd_T1w"]),
    "folder": (CONTRAST, ["contrast/P1/P1_T1", "contrast/P1/P1_T2"]),
    "folder of T1ce": (CONTRAST, ["T1C/P1_T1", "T2/P1_T2"]),
    "a word before another sequence": (TORN, ["P1/P1_T1", "P1/P1_post_T2", "P1/P1_post_FLAIR"]),
    "a longer name": (TORN, ["P1_t1", "P1_t2", "P1_2_t1", "P1_2_flair"]),
    "a folder per contrast": (NAMELESS, ["P1/T1_post/T1", "P1/T1_pre/T1", "P1/T2/T2"]),
    "a folder for one": (NAMELESS, ["P1/T1_post/T1"]),
    "folders of contrast": (NAMELESS, ["P1/postcontrast/t1", "P1/precontrast/t1", "P1/precontrast/t2"]),
    "planes": (NAMELESS, ["P1/AX_T1", "P1/AX_T2", "P1/SAG_T1", "P1/AX_FLAIR"]),
    "planes and a case": (NAMELESS, ["P1/AX_T1", "P1/AX_FLAIR", "P1/P1_T2"]),
    "folders of planes": (NAMELESS, ["P1/ax/t1", "P1/sag/t2", "P1/t1ce"]),
    "technique": (NAMELESS, ["P1/3D_MPRAGE_T1", "P1/3D_MPRAGE_FLAIR"]),
    "numbers of scans": (NAMELESS, ["P1/4_AX_T1", "P1/4_AX_T2"]),
    "case in folders of contrast": ("or one in each folder", ["T1_post/P1_T1", "T1_pre/P1_T1", "T2/P1_T2"]),
    "case in folders of planes": ("or one in each folder", ["P1/axial/P1_t1", "P1/axial/P1_t2", "P1/sag/P1_t1"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", OPEN)
def test_names_that_leave_a_case_open_reject_all_of_it(kind: str, tmp_path: Path) -> None:
    words, names = OPEN[kind]
    found = discover(touch(tmp_path / "src", "fine/fine_t1.nii", *(f"{name}.nii" for name in names)), task=GLIOMA)
    problems = {case.case: case.problem for case in found}
    assert [name for name, problem in problems.items() if problem is None] == ["fine"]
    assert any(words in str(problem) or "may contain one case" in str(problem) for problem in problems.values())
    assert all("rename the files, or describe them in a layout" in str(p) for p in problems.values() if p)


CLEAR = {
    "initials": {"CE-001": ["CE-001_t1", "CE-001_t2"], "SE_02": ["SE_02_t1"], "GD03": ["GD03_t1"]},
    "letters inside": {"Magdeburg-1": ["Magdeburg-1_t1"], "Gadi": ["Gadi_t1"], "Compost": ["Compost_t1"]},
    "numbers": {"001": ["001_t1", "001_t2"], "002": ["002_t1", "002_t2"]},
    "the same sequences": {"P1": ["P1_t1", "P1_t2"], "P1_2": ["P1_2_t1", "P1_2_t2"]},
    "surgery": {"P1_preop": ["P1_preop_t1"], "P1_postop": ["P1_postop_t1"]},
    "folder of a treatment": {"P1": ["BraTS_post_treatment/P1/P1_t1"]},
    "times": {"pre": [f"P1/pre/{m}" for m in SEQUENCES], "post": [f"P1/post/{m}" for m in SEQUENCES]},
    "sessions": {"sub-1_ses-pre": ["sub-1_ses-pre_t1"], "sub-1_ses-post": ["sub-1_ses-post_t1"]},
    "beside T1ce": {"P1": [f"postcontrast_study/P1/{m}/P1_{m}" for m in SEQUENCES]},
    "in the name of T1ce": {"P1_gd_x": ["P1/P1_gd_x_t1", "P1/P1_gd_x_t1ce"]},
    "without": {"P1": ["P1/P1_non-contrast_T1", "P1/P1_contrast_T1"]},
    "before": {"P1": ["P1/P1_precontrast_T1", "P1/P1_post_T1"]},
    "BIDS": {"sub-1": ["sub-1_acq-mprage_ce-gd_T1w", "sub-1_T1w", "sub-1_acq-tse_T2w"]},
}


@pytest.mark.parametrize("kind", CLEAR)
def test_names_that_leave_nothing_open_are_taken(kind: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}.nii" for names in CLEAR[kind].values() for name in names))
    found = {case.case: case for case in discover(tmp_path, task=GLIOMA)}
    assert {name: (len(case.images), case.problem) for name, case in found.items()} == {
        name: (len(names), None) for name, names in CLEAR[kind].items()
    }


TUMOURS = (
    "tumor_seg", "brainTumour_mask", "brain_tumor_seg", "gtv_mask", "rater1_seg", "final_label", "tumor_v2_mask",
    "BraTS_tumor_seg",
    "manual_corrected_segmentation", "GT_seg", "consensus_seg",
)  # fmt: skip
OTHERS = (
    "hippocampus_seg", "WMH_seg", "synthseg_seg", "fast_seg", "skullstrip_mask", "head_mask", "headmask", "edema_mask",
    "cerebrum_mask", "cerebellum_seg", "cortex_label", "P2_seg", "7_seg",
)  # fmt: skip


@pytest.mark.parametrize("name", [*TUMOURS, *OTHERS])
@pytest.mark.parametrize("before", ["P1_", ""])
def test_a_segmentation_is_of_a_tumour_by_all_its_words(before: str, name: str, tmp_path: Path) -> None:
    found = survey([touch(tmp_path, "P1/P1_t1.nii", "P1/P1_t2.nii", f"P1/{before}{name}.nii")], task=GLIOMA)
    (case,) = found.cases
    assert case.problem is None
    assert (case.label is not None) == (name in TUMOURS)
    assert name in TUMOURS or roles(found, tmp_path)[f"P1/{before}{name}.nii"] in (UNKNOWN, ORPHAN)


@pytest.mark.parametrize(
    ("folder", "used"),
    [
        *(
            (name, True)
            for name in (
                "labels",
                "labelsTr",
                "masks",
                "manual_masks",
                "ground_truth",
                "Segmentations_v2",
                "brain_tumor_masks",
            )
        ),
        *((name, False) for name in ("brain_masks", "wm_masks", "bet_mask", "tissue_seg", "hippocampus_masks")),
    ],
)
def test_folders_of_segmentations_are_read_as_their_names_are(folder: str, used: bool, tmp_path: Path) -> None:
    found = survey([touch(tmp_path, "images/P1_t1.nii", "images/P1_t2.nii", f"{folder}/P1_mask.nii")], task=GLIOMA)
    assert [case.label is not None for case in found.cases] == [used]
    assert used or roles(found, tmp_path)[f"{folder}/P1_mask.nii"] == ORPHAN


def test_what_is_told_of_a_folder_does_not_touch_what_lies_beside_its_images(tmp_path: Path) -> None:
    touch(tmp_path, *(f"skull_stripped/P1_{m}.nii" for m in ("t1", "seg")), "Head-01_t1.nii", "Head-01_seg.nii")
    assert [case.label is not None for case in discover(tmp_path, task=GLIOMA)] == [True, True]
    touch(tmp_path, "wm_masks/BraTS2021_00001_seg.nii", "images/BraTS2021_00001_t1.nii")
    assert roles(survey([tmp_path], task=GLIOMA), tmp_path)["wm_masks/BraTS2021_00001_seg.nii"] == ORPHAN


def test_a_file_that_is_given_has_a_folder_too(tmp_path: Path) -> None:
    touch(tmp_path, "a/contrast/P1_t1.nii", "a/contrast/P1_t2.nii")
    for sources in ([tmp_path / "a/contrast/P1_t1.nii"], [tmp_path / "a"], [tmp_path, tmp_path / "a/contrast"]):
        (case,) = survey(sources, GLIOMA).cases
        assert CONTRAST in str(case.problem)
    (case,) = survey([tmp_path / "a/contrast"], GLIOMA).cases
    assert case.problem is None, "what is above a source says nothing"

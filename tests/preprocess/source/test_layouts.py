"""Every released data set is recognised by names alone: the files here are empty."""

import os
from pathlib import Path

import pytest

from preprocess.errors import InputError
from preprocess.source.layouts import IGNORED, ORPHAN, UNKNOWN, discover, survey
from preprocess.source.layouts.layout import shipped_layouts
from support.sources import roles, touch
from support.tasks import GLIOMA, SEQUENCES

OLD = ("flair", "t1", "t1ce", "t2", "seg")
NEW = ("t2f", "t1n", "t1c", "t2w", "seg")
LUMIERE = "Imaging/Patient-001/week-000-1/DeepBraTumIA-segmentation/atlas"

# Files in the order FLAIR, T1, T1ce, T2, segmentation; paths as the data sets' citations have them.
TREES: dict[str, tuple[str, str, str, list[str]]] = {
    "2018": ("Brats18_2013_0_1", "brats2020", None,
             [f"HGG/Brats18_2013_0_1/Brats18_2013_0_1_{m}.nii.gz" for m in OLD]),
    "2019": ("BraTS19_CBICA_AAL_1", "brats2020", None,
             [f"LGG/BraTS19_CBICA_AAL_1/BraTS19_CBICA_AAL_1_{m}.nii.gz" for m in OLD]),
    "2020": ("BraTS20_Training_001", "brats2020", None,
             [f"BraTS20_Training_001/BraTS20_Training_001_{m}.nii" for m in OLD]),
    "2020, case 355": ("BraTS20_Training_355", "brats2020", None,
                       [*(f"BraTS20_Training_355/BraTS20_Training_355_{m}.nii" for m in OLD[:4]),
                        "BraTS20_Training_355/W39_1998.09.19_Segm.nii"]),
    "2021": ("BraTS2021_00000", "brats2020", None,
             [f"BraTS2021_00000/BraTS2021_00000_{m}.nii.gz" for m in OLD]),
    "2021, labels apart, no folders": ("BraTS2021_00007", "brats2020", None,
                                       [*(f"images/BraTS2021_00007_{m}.nii.gz" for m in OLD[:4]),
                                        "labels/BraTS2021_00007_seg.nii.gz"]),
    "2021 on Kaggle": ("BraTS2021_00000", "brats2020", None,
                       [*(f"BraTS2021_00000/BraTS2021_00000_{m}.nii/00000057_brain_{m}.nii" for m in OLD[:4]),
                        "BraTS2021_00000/BraTS2021_00000_seg.nii/00000057_final_seg.nii"]),
    "2021, inner names": ("BraTS2021_00000", "brats2020", None,
                          [*(f"BraTS2021_00000/00000057_brain_{m}.nii" for m in OLD[:4]),
                           "BraTS2021_00000/00000057_final_seg.nii"]),
    "FeTS 2022": ("FeTS2022_00000", "brats2020", None,
                  [f"FeTS2022_00000/FeTS2022_00000_{m}.nii.gz" for m in OLD]),
    "2023": ("BraTS-GLI-00000-001", "brats2023", "BraTS-GLI-00000",
             [f"BraTS-GLI-00000-001/BraTS-GLI-00000-001-{m}.nii.gz" for m in NEW]),
    "Africa": ("BraTS-SSA-00002-000", "brats2023", None,
               [f"95_Glioma/BraTS-SSA-00002-000/BraTS-SSA-00002-000-{m}.nii.gz" for m in NEW]),
    "2024": ("BraTS-GLI-02405-100", "brats2024", "BraTS-GLI-02405",
             [f"BraTS-GLI-02405-100/BraTS-GLI-02405-100-{m}.nii.gz" for m in NEW]),
    "PED 2023": ("BraTS-PED-00001-000", "brats-ped2023", "BraTS-PED-00001",
                 [f"ASNR-MICCAI-BraTS2023-PED-Challenge-TrainingData/BraTS-PED-00001-000/BraTS-PED-00001-000-{m}.nii.gz"
                  for m in NEW]),
    "MSD": ("BRATS_001", "msd", None, [*["imagesTr/BRATS_001.nii.gz"] * 4, "labelsTr/BRATS_001.nii.gz"]),
    "UCSF": ("UCSF-PDGM-0433_FU007d", "ucsf-pdgm", "UCSF-PDGM-0433",
             [f"UCSF-PDGM-v5/UCSF-PDGM-0433_FU007d_nifti/UCSF-PDGM-0433_FU007d_{m}.nii.gz"
              for m in ("FLAIR", "T1", "T1c", "T2", "tumor_segmentation")]),
    "UPENN": ("UPENN-GBM-00001_11", "upenn-gbm", "UPENN-GBM-00001",
              [*(f"NIfTI-files/images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_{m}.nii.gz"
                 for m in ("FLAIR", "T1", "T1GD", "T2")), "NIfTI-files/images_segm/UPENN-GBM-00001_11_segm.nii.gz"]),
    "BIDS": ("sub-01_ses-02", "bids", "sub-01",
             [*(f"sub-01/ses-02/anat/sub-01_ses-02_{m}.nii.gz" for m in ("FLAIR", "T1w", "ce-gadolinium_T1w", "T2w")),
              "derivatives/drawn/sub-01/ses-02/anat/sub-01_ses-02_space-T1w_dseg.nii.gz"]),
    "LUMIERE": ("Patient-001_week-000-1", "lumiere", "Patient-001",
                [*(f"{LUMIERE}/skull_strip/{m}_skull_strip.nii.gz" for m in ("flair", "t1", "ct1", "t2")),
                 f"{LUMIERE}/segmentation/seg_mask.nii.gz"]),
    "FeTS tool": ("Patient_001", "fets", None,
                  [*(f"DataForFeTS/Patient_001/Patient_001_brain_{m}.nii.gz" for m in ("t2flair", *OLD[1:4])),
                   "labels/Patient_001/Patient_001_final_seg.nii.gz"]),
    "RANO": ("AAAC_0_2008.03.30", "rano", "AAAC_0",
             [*(f"AAAC_0/2008.03.30/AAAC_0_2008.03.30_brain_{m}.nii.gz" for m in NEW[:4]),
              "AAAC_0/2008.03.30/AAAC_0_2008.03.30_final_seg.nii.gz"]),
    "MU": ("PatientID_0003_Timepoint_1", "mu-glioma-post", "PatientID_0003",
           [f"PatientID_0003/Timepoint_1/PatientID_0003_Timepoint_1_{m}.nii.gz"
            for m in (*(f"brain_{n}" for n in NEW[:4]), "tumorMask")]),
    "UCSD": ("UCSD-PTGBM-0002_01", "ucsd-ptgbm", "UCSD-PTGBM-0002",
             [f"UCSD-PTGBM-0002_01/UCSD-PTGBM-0002_01_{m}.nii.gz"
              for m in ("FLAIR", "T1pre", "T1post", "T2", "BraTS_tumor_seg")]),
    "TCGA": ("TCGA-02-0006", "brats-tcga", None,
             [f"TCGA-02-0006/TCGA-02-0006_1996.08.23_{m}.nii.gz"
              for m in ("flair", "t1", "t1Gd", "t2", "GlistrBoost_ManuallyCorrected")]),
    "bare names": ("someone", "generic", None,
                   [f"someone/{m}.nii.gz" for m in ("FLAIR", "T1w", "T1Gd", "T2w", "label")]),
    "spelt out": ("sub-01", "generic", None,
                  [f"x/sub-01_{m}.nii" for m in ("T2-FLAIR", "T1", "T1Contrast", "T2", "segmentation")]),
    "a folder per sequence": ("P1", "generic", None, [f"{m}/P1_{m}.NII.GZ" for m in OLD]),
}  # fmt: skip
OTHER_TASKS = {
    **{f"BraTS-{kind}-00004-000":
       (f"brats-{kind.lower()}", [f"BraTS2024-{kind}/BraTS-{kind}-00004-000-{m}.nii.gz" for m in NEW])
       for kind in ("PED", "MEN", "MET")},
    "BraTS-MEN-RT-0002-1": ("brats-men-rt", [f"x/BraTS-MEN-RT-0002-1_{m}.nii.gz" for m in ("t1c", "gtv")]),
    "EGD-0001": ("egd", [f"SUBJECTS/EGD-0001/{m}.nii.gz" for m in ("FLAIR", "T1", "T1GD", "T2", "MASK")]),
    "EGD-0002": ("egd", ["MR_EGD-0002/1_T1/NIFTI/T1.nii.gz", "MR_EGD-0002/5_MASK/NIFTI/MASK.nii.gz"]),
}  # fmt: skip


@pytest.mark.parametrize("tree", TREES)
def test_finds_a_complete_case(tree: str, tmp_path: Path) -> None:
    name, layout, patient, files = TREES[tree]
    (case,) = discover(touch(tmp_path, *files), task=GLIOMA)
    assert (case.case, case.layout, case.patient) == (name, layout, patient)
    assert case.images == dict(zip(SEQUENCES, (tmp_path / file for file in files[:4]), strict=True))
    assert case.label == tmp_path / files[4]
    assert case.problem is None


def test_all_layouts_in_one_tree_are_told_apart(tmp_path: Path) -> None:
    for number, (*_, files) in enumerate(TREES.values()):
        touch(tmp_path / f"part{number}", *files)
    found = survey([tmp_path], task=GLIOMA)
    assert sorted(case.layout for case in found.cases) == sorted(layout for _, layout, *_ in TREES.values())
    assert {file.role for file in found.files} == {*SEQUENCES, "segmentation", "flair+t1+t1ce+t2"}
    assert {layout for _, layout, *_ in TREES.values()} | {layout for layout, _ in OTHER_TASKS.values()} >= {
        layout.name for layout in shipped_layouts() if layout.name != "nnunet"
    }


@pytest.mark.parametrize("name", OTHER_TASKS)
def test_a_data_set_of_another_task_is_rejected_by_name(name: str, tmp_path: Path) -> None:
    layout, files = OTHER_TASKS[name]
    (case,) = discover(touch(tmp_path, *files), task=GLIOMA)
    assert case.problem is not None
    assert case.problem.startswith(f"{name} has the layout {layout}, which is for the task ")


LEFT_OUT = {
    "UCSF-PDGM-0004_nifti": [
        *(f"UCSF-PDGM-0004_{m}.nii.gz" for m in ("T1_bias", "brain_segmentation", "brain_parenchyma_segmentation")),
        *(f"UCSF-PDGM-0004_{m}.nii.gz" for m in ("DTI_eddy_FA", "ADC", "ASL_M0", "SWI_bias")),
    ],
    "UCSD-PTGBM-0002_01": [f"UCSD-PTGBM-0002_01_{m}.nii.gz" for m in ("total_cellular_tumor_seg", "ADC_vendor")],
    "images_structural_unstripped/UPENN-GBM-00001_11": ["UPENN-GBM-00001_11_T1_unstripped.nii.gz"],
    "Patient-001/week-000-1": ["CT1.nii.gz", "T1.nii.gz", "HD-GLIO-AUTO-segmentation/registered/segmentation.nii.gz"],
    "MICCAI-LH-BraTS2025-MET-Challenge-corrected-labels": ["BraTS-MET-01184-002-seg.nii.gz"],
}  # fmt: skip


@pytest.mark.parametrize("folder", LEFT_OUT)
def test_files_without_a_role_are_ignored_by_a_pattern(folder: str, tmp_path: Path) -> None:
    found = survey([touch(tmp_path, *(f"{folder}/{name}" for name in LEFT_OUT[folder]))], task=GLIOMA)
    assert {file.role for file in found.files} == {IGNORED}
    assert all(file.layout and file.pattern for file in found.files)


def test_missing_modalities_and_label_are_fine(tmp_path: Path) -> None:
    (case,) = discover(touch(tmp_path, "a/a_t1ce.nii.gz", "a/a_FLAIR.nii.gz"), task=GLIOMA)
    assert tuple(case.images) == ("flair", "t1ce")
    assert case.label is None


AMBIGUOUS = {
    "two endings": ("two files for t1", ["a/a_t1.nii.gz", "a/a_t1.nii"]),
    "both labels of case 355": (
        "two files for segmentation",
        [f"BraTS20_Training_355/{n}.nii" for n in ("BraTS20_Training_355_t1", "BraTS20_Training_355_seg",
                                                   "W39_1998.09.19_Segm")],
    ),
    "a folder for a file with two in it": (
        "two files for t1", [f"BraTS2021_00000/BraTS2021_00000_t1.nii/{n}_brain_t1.nii" for n in (57, 58)]
    ),
    "two runs": ("two files for t1", [f"sub-01/anat/sub-01_run-{n}_T1w.nii.gz" for n in (1, 2)]),
    "two labels with names of their own": (
        "two files for segmentation", ["a/a_t1.nii", "a/final_seg.nii", "a/gtv_seg.nii"]
    ),
    "many names in one folder": (
        "may contain one case", [f"p/{n}.nii" for n in ("4_AX_T1", "7_AX_T1", "3_AX_T2", "9_AX_T2_FLAIR")]
    ),
    "contrast or not": ("may be T1 with or without contrast", ["p/P1_gd_reg_T1.nii", "p/P1_gd_reg_T2.nii"]),
    "contrast or surgery": (
        "contrast or surgery", [f"p/P9_{t}_{m}.nii" for t in ("pre", "post") for m in ("T1", "FLAIR")]
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_what_names_leave_open_rejects_the_case_alone(kind: str, tmp_path: Path) -> None:
    words, names = AMBIGUOUS[kind]
    found = discover(touch(tmp_path, "fine/fine_t1.nii", *names), task=GLIOMA)
    assert [case.case for case in found if case.problem is None] == ["fine"]
    for case in found:
        assert case.case == "fine" or words in str(case.problem)


@pytest.mark.parametrize(
    ("plain", "contrast"),
    [("sub-01_T1w", "sub-01_ce-gadolinium_T1w"), ("P9_pre_T1", "P9_post_T1"), ("P9_T1", "P9_gd_T1"), ("T1", "gd_T1")],
)
def test_t1_with_contrast_is_known_by_its_name(plain: str, contrast: str, tmp_path: Path) -> None:
    (case,) = discover(touch(tmp_path, f"P9/{plain}.nii", f"P9/{contrast}.nii"), task=GLIOMA)
    assert case.images == {"t1": tmp_path / f"P9/{plain}.nii", "t1ce": tmp_path / f"P9/{contrast}.nii"}
    assert case.problem is None


@pytest.mark.parametrize(
    "name", ["P1_brain_mask", "P1_t1_bet_mask", "P1_t1_mask", "P1_brain_segmentation", "P1_tissue_seg", "csf_label",
             "P1_aparc_seg", "P1_brain_t1", "P1_bias_t1", "P1_ADC_t2", "other", "T1post", "CT1"],
)  # fmt: skip
def test_names_that_speak_of_something_else_are_neither_label_nor_sequence(name: str, tmp_path: Path) -> None:
    found = survey([touch(tmp_path, "P1/P1_flair.nii", f"P1/{name}.nii")], task=GLIOMA)
    (case,) = found.cases
    assert (list(case.images), case.label) == (["flair"], None)
    assert roles(found, tmp_path)[f"P1/{name}.nii"] == UNKNOWN


def test_files_of_two_patients_never_become_one_case(tmp_path: Path) -> None:
    touch(tmp_path, "P1/anat/FLAIR.nii", "P1/anat/T2.nii", "P2/anat/T1.nii", "P2/anat/T1ce.nii")
    touch(tmp_path, "siteA/P7_t1.nii", "siteB/P7_t2.nii", "siteA/P8_t1.nii", "siteB/P8_seg.nii", "siteA/p8_t2.nii")
    found = discover(tmp_path, task=GLIOMA)
    assert [case.case for case in found if case.label] == []
    assert {case.case: list(case.images) for case in found} == {
        "P1_anat": ["flair", "t2"], "P2_anat": ["t1", "t1ce"], "siteA_P7": ["t1"], "siteB_P7": ["t2"],
        "P8": ["t1"], "p8": ["t2"],
    }  # fmt: skip


def test_the_same_case_in_two_places_is_two_cases_of_one_patient(tmp_path: Path) -> None:
    for place in ("a", "b"):
        touch(tmp_path, *(f"{place}/{file}" for file in TREES["2023"][3]))
    assert {case.case: case.patient for case in discover(tmp_path, task=GLIOMA)} == dict.fromkeys(
        ["a_BraTS-GLI-00000-001", "b_BraTS-GLI-00000-001"], "BraTS-GLI-00000"
    )


def test_a_corrected_segmentation_comes_before_an_automatic_one(tmp_path: Path) -> None:
    automatic = "NIfTI-files/automated_segm/UPENN-GBM-00001_11_automated_approx_segm.nii.gz"
    found = survey([touch(tmp_path, *TREES["UPENN"][3], automatic)], task=GLIOMA)
    assert found.cases[0].label == tmp_path / TREES["UPENN"][3][4]
    assert roles(found, tmp_path)[automatic] == IGNORED


def test_every_other_file_is_unknown_or_an_orphan(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/._BRATS_001.nii.gz", "a/notes.txt", "x.zarr/c_t1.nii", "a/x.nii.gz", "b/b_seg.nii.gz")
    found = survey([touch(tmp_path, "BraTS20_Training_001/BraTS20_Training_001_seg.nii")], task=GLIOMA)
    assert found.cases == []
    assert roles(found, tmp_path) == {
        "BraTS20_Training_001/BraTS20_Training_001_seg.nii": ORPHAN, "a/x.nii.gz": UNKNOWN, "b/b_seg.nii.gz": ORPHAN
    }  # fmt: skip


NNUNET = ["imagesTr/BRATS_001_0000.nii.gz", "imagesTr/BRATS_001_0001.nii.gz", "labelsTr/BRATS_001.nii.gz"]


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ('{"channel_names": {"0": "T1", "1": "Flair"}}', {"flair": 1, "t1": 0}),
        ('{"modality": {"0": "FLAIR", "1": "t1gd"}}', {"flair": 0, "t1ce": 1}),
        ('{"channel_names": {"0": "T1", "1": "zscore"}}', None),
        ('{"channel_names": {"0": "T1", "1": "T1-CE"}}', None),
        ("not JSON", None),
        (None, None),
    ],
)
def test_nnunet_has_the_order_in_its_dataset_json(
    text: str | None, images: dict[str, int] | None, tmp_path: Path
) -> None:
    touch(tmp_path, *NNUNET)
    if text is not None:
        (tmp_path / "dataset.json").write_text(text)
    (case,) = discover(tmp_path, task=GLIOMA)
    assert case.label == tmp_path / NNUNET[2]
    if images is None:
        assert "dataset.json does not name this sequence; name it there (channel_names) as one of flair, t1, " in (
            str(case.problem)
        )
        assert "t1gd, t1contrast, t2w, or describe" in str(case.problem)
    else:
        assert (case.problem, case.images) == (None, {m: tmp_path / NNUNET[n] for m, n in images.items()})


def test_folders_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    real = os.scandir
    touch(tmp_path, "P1/P1_t1.nii", "P2/P2_t1.nii")

    def rejecting(path: str) -> object:
        if str(path).endswith("P2"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", rejecting)
    with pytest.raises(InputError, match=r"cannot be read: .*P2 \(Permission denied\)"):
        discover(tmp_path, task=GLIOMA)


@pytest.mark.parametrize("name", ["P2", "P1/P1_t2.nii.gz", "P1/itself.nii"])
def test_links_that_lead_nowhere_are_named(name: str, tmp_path: Path) -> None:
    touch(tmp_path, "P1/P1_t1.nii")
    (tmp_path / ".hidden").symlink_to("nowhere")
    assert len(discover(tmp_path, task=GLIOMA)) == 1
    (tmp_path / name).symlink_to("itself.nii" if "itself" in name else "nowhere")
    with pytest.raises(InputError, match=rf"cannot be read: {tmp_path / name} \(broken link: .*\); get"):
        discover(tmp_path, task=GLIOMA)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        discover(tmp_path / "nowhere", task=GLIOMA)


@pytest.mark.parametrize("name", [b"a\tb_t1.nii.gz", b"\xff\xfe_t1.nii.gz", b"x" * 200 + b"_t1.nii.gz"])
def test_a_file_with_an_impossible_name_is_one_message(name: bytes, tmp_path: Path) -> None:
    touch(tmp_path, os.fsdecode(name))
    with pytest.raises(InputError, match="rename it"):
        discover(tmp_path, task=GLIOMA)


def test_folders_that_hold_themselves_are_read_once(tmp_path: Path) -> None:
    touch(tmp_path, *(f"BraTS2021_00001/BraTS2021_00001_{n}.nii.gz" for n in OLD))
    for name in "abcd":
        (tmp_path / name).symlink_to(tmp_path)
    assert len(discover(tmp_path, task=GLIOMA)) == 1

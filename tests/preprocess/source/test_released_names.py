"""What names of released data sets show besides the role of a file: year, patient, contrast; where layouts may be."""

from pathlib import Path

import pytest

from preprocess.errors import InputError
from preprocess.source.layouts import FOLDER_LAYOUT, UNKNOWN, UNREAD, discover, survey
from preprocess.source.layouts.layout import patient_named, read_layout
from preprocess.source.nifti import is_other_format
from support.sources import roles, touch
from support.tasks import GLIOMA

PED = [f"BraTS-PED-02024-000/BraTS-PED-02024-000-{m}.nii.gz" for m in ("t1n", "t2w", "seg")]
LAYOUT = """
numbering: msd
case: "(?P<patient>P[0-9]+)/scan[0-9]"
patients: {P7/scan1: P8}
files: {t1: "{case}/one", t2: "{case}/two"}
"""


def test_names_of_two_years_are_rejected_where_nothing_shows_the_year(tmp_path: Path) -> None:
    touch(tmp_path, *PED)
    with pytest.raises(
        InputError, match="matches the layouts brats-ped and brats-ped2023, which disagree; choose one with --layout"
    ):
        discover(tmp_path, task=GLIOMA)
    (case,) = discover(tmp_path, GLIOMA, "brats-ped2023")
    assert (case.problem, case.numbering, case.patient) == (None, "brats2023", "BraTS-PED-02024")
    (case,) = discover(tmp_path, GLIOMA, "brats-ped")
    assert "choose --task brats-ped " in str(case.problem)
    assert "files of brats-ped2023 have the same names: choose --layout for them" in str(case.problem)


@pytest.mark.parametrize(
    ("folder", "layout"),
    [
        ("ASNR-MICCAI-BraTS2023-PED-Challenge-ValidationData", "brats-ped2023"),
        ("BraTS2023-PED/some/where", "brats-ped2023"),
        ("brats_peds_2023", "brats-ped2023"),
        ("BraTS-PEDs2024_Training", "brats-ped"),
        ("BraTS2025-PED", "brats-ped"),
        ("BraTS2023-PED/moved/BraTS-PEDs2024", "brats-ped"),
        ("BraTS-PEDs2024/of/BraTS2023-PED", "brats-ped2023"),
    ],
)
def test_a_folder_with_the_year_tells_them_apart(folder: str, layout: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{name}" for name in PED))
    (case,) = discover(tmp_path, task=GLIOMA)
    assert (case.layout, case.label is not None) == (layout, True)


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001"),
        ("sub-01_ses-02", "sub-01"),
        ("PatientID_0003_Timepoint_2", "PatientID_0003"),
        ("Patient-001_week-000-1", "Patient-001"),
        ("AAAC_0_2008.03.30", "AAAC_0"),
        ("BraTS-PED-00001-000", "BraTS-PED-00001"),
        ("UCSF-PDGM-0433_FU007d", "UCSF-PDGM-0433"),
        ("UCSF-PDGM-0315", "UCSF-PDGM-0433"),
        ("BraTS2021_00001", None),
        ("P1_week1", None),
    ],
)
def test_the_patient_is_known_by_the_name_of_the_case(case: str, patient: str | None) -> None:
    assert patient_named(case) == patient


def test_cases_under_a_number_of_their_own_have_the_patient_that_the_layout_names(tmp_path: Path) -> None:
    touch(tmp_path, "UCSF-PDGM-0315_nifti/UCSF-PDGM-0315_T1.nii", "UCSF-PDGM-0316_nifti/UCSF-PDGM-0316_T1.nii")
    assert [case.patient for case in discover(tmp_path, task=GLIOMA)] == ["UCSF-PDGM-0433", "UCSF-PDGM-0316"]


@pytest.mark.parametrize("label", ["postgd", "gadolinium", "ce", "T1ce", "contrast", "Enhanced"])
def test_an_acquisition_with_contrast_is_no_plain_t1(label: str, tmp_path: Path) -> None:
    odd = f"sub-01/anat/sub-01_acq-{label}_T1w.nii"
    found = survey([touch(tmp_path, odd, "sub-01/anat/sub-01_T2w.nii")], task=GLIOMA)
    assert [(list(case.images), case.problem) for case in found.cases] == [(["t2"], None)]
    assert roles(found, tmp_path)[odd] == UNKNOWN


@pytest.mark.parametrize("label", ["space", "mprage", "precontrast", "nogd", "sequence"])
def test_other_acquisitions_are(label: str, tmp_path: Path) -> None:
    (case,) = discover(touch(tmp_path, f"sub-01/anat/sub-01_acq-{label}_run-1_T1w.nii"), task=GLIOMA)
    assert (list(case.images), case.layout, case.problem) == (["t1"], "bids", None)


@pytest.mark.parametrize("name", ["x.nii.bz2", "x.nii.xz", "x.nii.zst", "x.zip", "x.tar", "x.tgz", "x.TAR.gz", "x.7z"])
def test_packed_files_are_told_as_not_read(name: str, tmp_path: Path) -> None:
    assert is_other_format(Path(name))
    found = survey([touch(tmp_path, "P1/P1_t1.nii", name)], task=GLIOMA)
    assert roles(found, tmp_path)[name] == UNREAD


def test_a_layout_is_found_above_what_is_given(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "P7/scan1/one.nii", "P7/scan1/two.nii", "P8/scan1/one.nii")
    (src / FOLDER_LAYOUT).write_text(LAYOUT)
    for sources in ([src / "P7"], [src / "P7/scan1"], [src / "P7/scan1/one.nii", src / "P7/scan1/two.nii"]):
        (case,) = survey(sources, GLIOMA).cases
        assert (case.layout, list(case.images), case.patient) == ("ccsd-layout", ["t1", "t2"], "P8")
    (src / "P7" / FOLDER_LAYOUT).write_text(LAYOUT.replace("{case}/two", "{case}/three"))
    assert [list(case.images) for case in survey([src / "P7/scan1"], GLIOMA).cases] == [["t1"]], "the nearest counts"
    deep = touch(src / "a/b/c", "d/P9/scan1/one.nii", "P9/scan1/one.nii")
    assert [case.layout for case in survey([deep], GLIOMA).cases] == ["ccsd-layout"] * 2
    assert survey([deep / "d"], GLIOMA).cases == [], "too far above"


def test_a_patient_in_a_layout_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(LAYOUT)
    layout = read_layout(str(tmp_path / "mine.yaml"), GLIOMA)
    assert layout.patient_of("P5_scan1") == "P5"
    assert layout.patient_of("P7_scan1") == "P8"
    assert layout.patient_of("P5-scan1") is None

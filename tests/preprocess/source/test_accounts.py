"""Every file of a source is accounted for: in the table, and in the summary that commands print."""

from pathlib import Path

import pytest

from preprocess.errors import InputError
from preprocess.source.accounts import find_cases, read_files, summary, unused, write_files
from support.sources import touch
from support.tasks import GLIOMA

PAGE = "docs/how-to/data.md: My data set is not listed"


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Three cases of three layouts without any contrast, and files that no case uses."""
    touch(tmp_path, "imagesTs/BRATS_485.nii.gz", "P1/CT1.nii.gz", "P1/P1_flair.nii.gz", "P2/P2_seg.nii.gz")
    return touch(tmp_path, *(f"UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_{m}.nii.gz" for m in ("T1", "T1_bias")))


def test_the_summary_says_what_was_found_and_what_is_left(mixed: Path) -> None:
    (mixed / "imagesTs/BRATS_485.nii.gz").unlink()
    assert summary(find_cases(mixed, task=GLIOMA).files, GLIOMA) == [
        "2 cases, by layout generic (1), ucsf-pdgm (1); files found: flair 1, t1 1, t1ce 0, t2 0, segmentation 0",
        "no case has t1ce",
        "no case has t2",
        f"not used, because the name matches no layout ({PAGE}): {mixed / 'P1/CT1.nii.gz'}",
        f"not used, because a segmentation without images is not a case: {mixed / 'P2/P2_seg.nii.gz'}",
        f"not used, because the layout ignores it: {mixed}/UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1_bias.nii.gz",
    ]


def test_several_sequences_in_one_file_count_each(mixed: Path) -> None:
    assert "flair 2, t1 2, t1ce 1, t2 1" in summary(find_cases(mixed, task=GLIOMA).files, GLIOMA)[0]


def test_at_most_three_files_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "P1/P1_t1.nii", *(f"P1/x{n}.nii" for n in range(9)))
    (line,) = unused(find_cases(tmp_path, task=GLIOMA).files)
    assert line.startswith("not used, because the name")
    assert line.endswith("x2.nii, and 6 more")


def test_the_table_has_every_file_and_comes_back(mixed: Path, tmp_path: Path) -> None:
    touch(mixed, "P1/odd\nname\t.nii")
    files = find_cases(mixed, task=GLIOMA).files
    write_files(tmp_path / "out", files)
    back = read_files(tmp_path / "out")
    assert [(f.case, f.role, f.layout, f.pattern) for f in back] == [
        (f.case, f.role, f.layout, f.pattern) for f in files
    ]
    assert len(back) == 7
    assert read_files(tmp_path) == []


def test_nothing_usable_is_rejected_with_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path / "src", "P1/CT1.nii.gz", "P2/P2_seg.nii.gz")
    with pytest.raises(InputError, match=r"no case found; .*not used.*CT1.*not used.*P2_seg"):
        find_cases(tmp_path / "src", record=tmp_path, task=GLIOMA)
    assert [file.role for file in read_files(tmp_path)] == ["unknown", "orphan"]


def test_labels_name_a_known_convention(mixed: Path) -> None:
    assert {case.numbering for case in find_cases(mixed, labels="msd", task=GLIOMA).cases} == {"msd"}
    with pytest.raises(
        InputError, match="labels brats99: unknown convention of the task brats-gli-pre; allowed: brats2023, brats2020"
    ):
        find_cases(mixed, labels="brats99", task=GLIOMA)


def test_other_image_formats_are_named_with_what_to_do(tmp_path: Path) -> None:
    touch(tmp_path, "P1/P1_flair.nii.gz", "P2/VSD.Brain.XX.O.MR_Flair.54512.mha", "P3/IM0001.dcm", "P3/notes.txt")
    found = find_cases(tmp_path, task=GLIOMA)
    assert [case.case for case in found.cases] == ["P1"]
    (line,) = unused(found.files)
    assert line.startswith("not read, because the format is not NIfTI; unpack it, or convert it to .nii.gz")
    assert line.endswith(f"{tmp_path}/P2/VSD.Brain.XX.O.MR_Flair.54512.mha, {tmp_path}/P3/IM0001.dcm")

"""Every released layout is found by names alone: the files here are empty."""

import os
from pathlib import Path

import pytest

from preprocess.errors import InputError
from preprocess.modalities import MODALITIES
from preprocess.source.layouts import discover, passed_over

OLD = ("flair", "t1", "t1ce", "t2", "seg")
NEW = ("t2f", "t1n", "t1c", "t2w", "seg")

TREES = {
    "brats2018": [f"HGG/Brats18_2013_0_1/Brats18_2013_0_1_{m}.nii.gz" for m in OLD],
    "brats2019": [f"LGG/BraTS19_TCIA09_255_1/BraTS19_TCIA09_255_1_{m}.nii.gz" for m in OLD],
    "brats2020": [f"BraTS20_Training_001/BraTS20_Training_001_{m}.nii" for m in OLD],
    "brats2021": [f"BraTS2021_00000/BraTS2021_00000_{m}.nii.gz" for m in OLD],
    "brats2023": [f"BraTS-GLI-00000-000/BraTS-GLI-00000-000-{m}.nii.gz" for m in NEW],
    "brats2024": [f"BraTS-GLI-02405-100/BraTS-GLI-02405-100-{m}.nii.gz" for m in NEW],
    "msd": ["imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz"],
    "bare names": [f"someone/{m}.nii.gz" for m in ("FLAIR", "T1w", "T1Gd", "T2w", "label")],
    "spelt out": [f"x/sub-01_{m}.nii" for m in ("T2-FLAIR", "T1", "T1Contrast", "T2", "segmentation")],
}
EXPECTED = {
    "brats2018": ("Brats18_2013_0_1", "brats2020"),
    "brats2019": ("BraTS19_TCIA09_255_1", "brats2020"),
    "brats2020": ("BraTS20_Training_001", "brats2020"),
    "brats2021": ("BraTS2021_00000", "brats2020"),
    "brats2023": ("BraTS-GLI-00000-000", "brats2023"),
    "brats2024": ("BraTS-GLI-02405-100", "brats2024"),
    "msd": ("BRATS_001", "msd"),
    "bare names": ("someone", "generic"),
    "spelt out": ("sub-01", "generic"),
}


def touch(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize("tree", TREES)
def test_finds_a_complete_case(tree: str, tmp_path: Path) -> None:
    (case,) = discover(touch(tmp_path, TREES[tree]))
    assert (case.case, case.layout) == EXPECTED[tree]
    assert tuple(case.images) == MODALITIES
    assert case.label is not None
    assert case.problem is None


def test_each_modality_has_the_file_with_its_name(tmp_path: Path) -> None:
    (case,) = discover(touch(tmp_path, TREES["brats2023"]))
    assert {m: path.name.rsplit("-", 1)[1] for m, path in case.images.items()} == {
        "flair": "t2f.nii.gz", "t1": "t1n.nii.gz", "t1ce": "t1c.nii.gz", "t2": "t2w.nii.gz"
    }  # fmt: skip


def test_a_mix_of_layouts_in_one_tree(tmp_path: Path) -> None:
    for number, names in enumerate(TREES.values()):
        touch(tmp_path / f"part{number}", names)
    assert [case.case for case in discover(tmp_path)] == sorted(case for case, _ in EXPECTED.values())


def test_case_355_has_a_label_with_a_name_of_its_own(tmp_path: Path) -> None:
    folder = "BraTS20_Training_355"
    names = [f"{folder}/{folder}_{m}.nii" for m in OLD[:4]] + [f"{folder}/W39_1998.09.19_Segm.nii"]
    (case,) = discover(touch(tmp_path, names))
    assert case.label is not None
    assert case.label.name == "W39_1998.09.19_Segm.nii"


def test_missing_modalities_and_label_are_fine(tmp_path: Path) -> None:
    (case,) = discover(touch(tmp_path, ["a/a_t1ce.nii.gz", "a/a_FLAIR.nii.gz"]))
    assert tuple(case.images) == ("flair", "t1ce")
    assert case.label is None


def test_two_files_for_one_modality_are_a_problem_of_that_case_alone(tmp_path: Path) -> None:
    touch(tmp_path, ["a/a_t1.nii.gz", "a/a_t1.nii", "b/b_t1.nii"])
    first, second = discover(tmp_path)
    assert first.problem is not None
    assert "a_t1.nii.gz" in first.problem
    assert second.problem is None


def test_passes_over_hidden_foreign_and_label_only_files(tmp_path: Path) -> None:
    touch(
        tmp_path, ["imagesTr/._BRATS_001.nii.gz", "a/notes.txt", "a/other.nii.gz", "b/b_seg.nii.gz", "x.zarr/c_t1.nii"]
    )
    assert discover(tmp_path) == []


def test_images_with_names_of_their_own_are_told(tmp_path: Path) -> None:
    touch(tmp_path, ["a/a_flair.nii", "a/a_T1post.nii", "a/a_seg.nii", "a/._b.nii", "imagesTr/c.nii", "labelsTr/c.nii"])
    note = passed_over([tmp_path, tmp_path / "a" / "a_flair.nii"])
    assert note is not None
    assert "lists: " + str(tmp_path / "a" / "a_T1post.nii") + "; a file" in note
    (tmp_path / "a" / "a_T1post.nii").unlink()
    assert passed_over([tmp_path]) is None


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        discover(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [b"a\tb_t1.nii.gz", b"\xff\xfe_t1.nii.gz", b"x" * 200 + b"_t1.nii.gz"])
def test_a_file_with_an_impossible_name_is_one_message(name: bytes, tmp_path: Path) -> None:
    touch(tmp_path, [os.fsdecode(name)])
    with pytest.raises(InputError, match="rename it"):
        discover(tmp_path)


def test_folders_that_hold_themselves_are_read_once(tmp_path: Path) -> None:
    touch(tmp_path, TREES["brats2021"])
    for name in "abcd":
        (tmp_path / name).symlink_to(tmp_path)
    assert len(discover(tmp_path)) == 1

"""The layout or the user determines what a label number means; the values only verify it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocess.convert import convert
from preprocess.dataset import read_metas
from preprocess.source import nifti
from support.tasks import GLIOMA

SHAPE = (24, 24, 24)
CaseWriter = Callable[..., Path]


def drawn(*values: float, dtype: type = np.uint8) -> np.ndarray:
    label = np.zeros(SHAPE, dtype)
    for number, value in enumerate(values):
        label[4 + 3 * number : 7 + 3 * number, 8:12, 8:12] = value
    return label


def own(src: Path, name: str = "P1") -> Path:
    """Rename a case that was written in the naming of 2020, so that no layout matches it."""
    folder = next(src.iterdir())
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace(folder.name, name)))
    folder.rename(src / name)
    return src


def outcome(src: Path, tmp_path: Path, **options: str) -> tuple[str, str]:
    (found,) = convert(src, tmp_path / "dest", **options, task=GLIOMA)
    return found.status, found.message


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((1, 2, 4), ["brats2020 (WT 0.1 ml, TC 0.1 ml, ET 0.0 ml)", "brats2024"]),
        ((1, 2, 3), ["brats2023", "msd", "deepbratumia"]),
        ((5,), ["none of brats2023, brats2020"]),
    ],
)
def test_numbers_that_nobody_explains_are_rejected_with_what_they_could_be(
    values: tuple[int, ...], told: list[str], write_case: CaseWriter, tmp_path: Path
) -> None:
    status, message = outcome(own(write_case(shape=SHAPE, label=drawn(*values))), tmp_path)
    assert status == "rejected"
    assert all(text in message for text in (*told, "--labels NAME"))


def test_an_empty_segmentation_needs_no_explanation(write_case: CaseWriter, tmp_path: Path) -> None:
    assert outcome(own(write_case(shape=SHAPE, label=drawn())), tmp_path)[0] == "converted"


@pytest.mark.parametrize(("name", "tumour_core"), [("brats2023", True), ("msd", False)])
def test_the_users_word_decides_and_changes_what_was_converted(
    name: str, tumour_core: bool, write_case: CaseWriter, tmp_path: Path
) -> None:
    src = own(write_case(shape=SHAPE, label=drawn(1)))
    assert outcome(src, tmp_path, labels="brats2024")[0] == "converted"
    assert outcome(src, tmp_path, labels=name)[0] == "converted"
    assert outcome(src, tmp_path, labels=name)[0] == "unchanged"
    (meta,) = read_metas(tmp_path / "dest").values()
    assert meta.label_convention.name == name
    assert bool(meta.volumes_ml["TC"]) == tumour_core


def test_values_verify_what_the_layout_says(write_case: CaseWriter, tmp_path: Path) -> None:
    status, message = outcome(write_case(shape=SHAPE, label=drawn(1, 2, 3)), tmp_path)
    assert (status, "wrong label values: 3" in message) == ("rejected", True)


def test_cases_of_several_layouts_each_have_their_own_numbers(cohort: Path, tmp_path: Path) -> None:
    convert(cohort, tmp_path / "dest", task=GLIOMA)
    metas = read_metas(tmp_path / "dest")
    assert {meta.label_convention.name for meta in metas.values()} == {"brats2020", "brats2023"}


@pytest.mark.parametrize(("value", "status"), [(0.9995, "converted"), (0.99, "rejected"), (np.nan, "rejected")])
def test_values_near_whole_numbers_are_taken_with_a_warning(
    value: float, status: str, write_case: CaseWriter, tmp_path: Path
) -> None:
    found, message = outcome(write_case(shape=SHAPE, label=drawn(value, 4, dtype=np.float32)), tmp_path)
    assert found == status
    assert ("[label-rounded]" in message) == (status == "converted")


def test_a_mask_of_the_brain_is_no_tumour(cohort: Path, tmp_path: Path) -> None:
    case = "BraTS20_Training_001"
    shutil.copytree(cohort / case, tmp_path / "src" / case)
    path = tmp_path / "src" / case / f"{case}_seg.nii.gz"
    image = nifti.read(tmp_path / "src" / case / f"{case}_t1.nii.gz")
    nifti.write(path, (image.array != 0).astype(np.uint8), image.affine)
    (rejected,) = convert(tmp_path / "src", tmp_path / "dest", task=GLIOMA)
    assert "covers 100% of the brain; is it a mask of the brain? [brain-mask]" in rejected.message
    (allowed,) = convert(tmp_path / "src", tmp_path / "dest", allow=["brain-mask"], task=GLIOMA)
    assert allowed.status == "converted"

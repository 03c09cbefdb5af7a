"""Phantoms: the same seed gives the same bytes, and the contrasts are those of real MRI."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from preprocess.errors import InputError
from preprocess.phantom.cohort import PhantomCase, case_names, make_case, write_cohort
from preprocess.source import nifti
from preprocess.source.layouts import discover
from support.tasks import GLIOMA, SEQUENCES

NCR, ED, ET = 1, 2, 3


@pytest.fixture(scope="module")
def phantoms() -> list[PhantomCase]:
    return [make_case((48, 48, 48), seed=7, index=index, difficulty=0.3, task=GLIOMA) for index in range(5)]


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.nii.gz"))}


def test_the_same_seed_gives_the_same_bytes(cohort: Path, tmp_path: Path) -> None:
    list(write_cohort(tmp_path / "again", cases=2, size=32, seed=1, task=GLIOMA))
    list(write_cohort(tmp_path / "other", cases=2, size=32, seed=2, task=GLIOMA))
    again, other = digests(tmp_path / "again"), digests(tmp_path / "other")
    first = digests(cohort)
    assert again == {name: first[name] for name in again}
    assert not set(again.values()) & set(other.values())


def test_both_namings_are_found(cohort: Path) -> None:
    found = discover(cohort, task=GLIOMA)
    assert [files.case for files in found] == sorted(case_names(6, GLIOMA))
    assert [files.layout for files in found].count("brats2020") == 3
    assert [files.layout for files in found].count("brats2023") == 3
    assert all(tuple(files.images) == SEQUENCES and files.label for files in found)
    assert all(len(list(files.images["t1"].parent.iterdir())) == 5 for files in found)


def test_labels_follow_the_naming(cohort: Path) -> None:
    for files in discover(cohort, task=GLIOMA):
        assert files.label is not None
        values = set(np.unique(nifti.read(files.label).array).tolist())
        assert values == ({0, 1, 2, 4} if files.layout == "brats2020" else {0, 1, 2, 3})


def test_files_lie_in_space_as_brats_does(cohort: Path) -> None:
    volume = nifti.read(next(iter(discover(cohort, task=GLIOMA)[0].images.values())))
    assert volume.array.dtype == np.int16
    assert volume.affine.tolist() == [[-1, 0, 0, 0], [0, -1, 0, 31], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_background_is_zero_and_the_brain_is_not(phantoms: list[PhantomCase]) -> None:
    for images, label in phantoms:
        masks = [images[m] != 0 for m in SEQUENCES]
        assert all(np.array_equal(mask, masks[0]) for mask in masks)
        assert 0.1 < masks[0].mean() < 0.5
        assert not masks[0][[0, -1]].any()
        assert (masks[0] | (label == 0)).all()


def test_every_tumour_has_its_three_parts_nested(phantoms: list[PhantomCase]) -> None:
    for _, label in phantoms:
        counts = np.bincount(label.ravel(), minlength=4)
        assert counts.min() > 0
        assert 500 < counts[1:].sum() < 20000
        assert counts[ED] > counts[ET]


def contrast(phantom: PhantomCase, modality: str, first: int, second: int) -> float:
    """Difference of the means of two classes (0: brain without tumour) in units of the deviation within them."""
    images, label = phantom
    image = images[modality].astype(float)
    a, b = (image[(label == number) & (image > 0)] for number in (first, second))
    return float((a.mean() - b.mean()) / np.sqrt((a.var() + b.var()) / 2))


@pytest.mark.parametrize("index", range(5))
def test_contrasts(phantoms: list[PhantomCase], index: int) -> None:
    phantom = phantoms[index]
    assert contrast(phantom, "t1ce", ET, ED) > 1.8, "enhancement shows in T1ce"
    assert contrast(phantom, "t1ce", NCR, ET) < -2, "necrosis is dark in T1ce"
    for modality in ("flair", "t1", "t2"):
        assert abs(contrast(phantom, modality, ET, ED)) < 1.6, "and hardly elsewhere"
        assert abs(contrast(phantom, modality, ET, NCR)) < 1.6
    assert contrast(phantom, "flair", ED, 0) > 2, "oedema is bright in FLAIR"
    assert contrast(phantom, "t2", ED, 0) > 0.8, "and in T2"


def test_oedema_is_darker_than_white_matter_in_t1(phantoms: list[PhantomCase]) -> None:
    for images, label in phantoms:
        healthy = images["t1"][(label == 0) & (images["t1"] > 0)]
        assert np.median(images["t1"][label == ED]) < 0.9 * np.quantile(healthy, 0.75), "darker than white matter"


def test_csf_is_bright_in_t2_and_dark_in_flair(phantoms: list[PhantomCase]) -> None:
    for images, label in phantoms:
        healthy = (label == 0) & (images["t2"] > 0)
        csf = healthy & (images["t2"] > np.quantile(images["t2"][healthy], 0.95))
        assert images["flair"][csf].mean() < 0.6 * images["flair"][healthy].mean()


def test_a_threshold_does_not_solve_it(phantoms: list[PhantomCase]) -> None:
    """Vessels in T1ce and caps in FLAIR are as bright as the tumour's parts."""
    for modality, part in (("t1ce", (ET,)), ("flair", (NCR, ED, ET))):
        best = []
        for images, label in phantoms:
            target = np.isin(label, part)
            cuts = np.quantile(images[modality][target], np.linspace(0.02, 0.9, 30))
            dices = [
                2 * (target & (images[modality] > cut)).sum() / (target.sum() + (images[modality] > cut).sum())
                for cut in cuts
            ]
            best.append(max(dices))
        assert np.mean(best) < 0.97
        assert min(best) < 0.95


def test_two_scans_of_a_patient_share_the_head() -> None:
    names = case_names(12, GLIOMA)
    again = names.index("BraTS-GLI-00003-001")
    first = names.index("BraTS-GLI-00003-000")
    masks = [
        make_case((32, 32, 32), seed=0, index=i, difficulty=0.5, task=GLIOMA)[0]["t1"] != 0
        for i in (first, again, again + 1)
    ]
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[1], masks[2])


def test_difficulty_lowers_the_contrast() -> None:
    easy, hard = (make_case((40, 40, 40), seed=0, index=0, difficulty=d, task=GLIOMA) for d in (0.0, 1.0))
    assert contrast(easy, "flair", ED, 0) > 1.5 * contrast(hard, "flair", ED, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cases": 0}, "at least 1"),
        ({"size": 16}, "at least 32"),
        ({"seed": -1}, "0 or more"),
        ({"difficulty": 2.0}, "from 0"),
    ],
)
def test_impossible_options(tmp_path: Path, options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(write_cohort(tmp_path, **({"cases": 1, "size": 32, "seed": 0} | options), task=GLIOMA))
    assert not list(tmp_path.iterdir())


def test_cases_of_others_are_not_replaced(tmp_path: Path) -> None:
    name = case_names(1, GLIOMA)[0]
    (tmp_path / name).mkdir()
    (tmp_path / name / "real.nii.gz").write_bytes(b"real")
    with pytest.raises(InputError, match=f"and would replace, for example {name}; choose another"):
        list(write_cohort(tmp_path, cases=1, size=32, seed=0, task=GLIOMA))
    assert (tmp_path / name / "real.nii.gz").read_bytes() == b"real"
    assert len(list(tmp_path.iterdir())) == 1


def test_phantoms_are_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        list(write_cohort(tmp_path, cases=1, size=32, seed=0, task=GLIOMA))

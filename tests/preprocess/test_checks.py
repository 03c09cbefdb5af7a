"""Checks find what was planted, and nothing in a cohort that is in order."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from preprocess.checks import CHECKS, examine
from preprocess.errors import InputError
from preprocess.phantom.cohort import write_cohort
from preprocess.source.layouts import discover
from preprocess.source.load import Loaded, load
from preprocess.source.nifti import Forms, Volume
from support.tasks import GLIOMA


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Loaded]:
    folder = tmp_path_factory.mktemp("cohort")
    list(write_cohort(folder, cases=4, size=48, seed=3, difficulty=0.3, task=GLIOMA))
    return [load(files) for files in discover(folder, task=GLIOMA)]


def found(case: Loaded) -> set[str]:
    return {finding.check for finding in examine(case)}


def with_image(case: Loaded, name: str, volume: Volume) -> Loaded:
    return replace(case, images={**case.images, name: volume})


def exchanged(case: Loaded, first: str, second: str) -> Loaded:
    return replace(case, images={**case.images, first: case.images[second], second: case.images[first]})


def changed(case: Loaded, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Loaded:
    volume = case.images[name]
    return with_image(case, name, replace(volume, array=change(volume.array)))


def test_nothing_is_found_where_nothing_is_wrong(cases: list[Loaded]) -> None:
    assert [found(case) for case in cases] == [set()] * 4


PAIRS = [("flair", "t2"), ("t1", "t2"), ("t1ce", "t2"), ("flair", "t1"), ("flair", "t1ce")]


@pytest.mark.parametrize("pair", PAIRS)
def test_exchanged_files(cases: list[Loaded], pair: tuple[str, str]) -> None:
    for case in cases:
        assert found(exchanged(case, *pair)) == {"contrast"}


def test_no_segmentation_is_needed_to_see_exchanged_files(cases: list[Loaded]) -> None:
    for case in (replace(case, label=None) for case in cases):
        assert found(case) == set()
        for order in permutations(case.images):
            moved = [a for a, b in zip(order, case.images, strict=True) if a != b]
            if len(moved) == 2 and set(moved) != {"t1", "t1ce"}:
                images = dict(zip(case.images, (case.images[name] for name in order), strict=True))
                (finding,) = examine(replace(case, images=images))
                assert all(name in finding.message for name in moved)


def test_exchanged_t1_and_t1ce(cases: list[Loaded]) -> None:
    messages = [str(f) for case in cases for f in examine(exchanged(case, "t1", "t1ce"))]
    assert len(messages) >= 3
    assert set(messages) == {"t1 is brighter than t1ce in ET; are the two files swapped? [contrast]"}


@pytest.mark.parametrize("name", ["t1", "t2"])
def test_an_image_with_its_sides_exchanged(cases: list[Loaded], name: str) -> None:
    messages = [str(f) for case in cases for f in examine(changed(case, name, lambda a: a[::-1]))]
    assert sum("look swapped relative to the other images" in text and name in text for text in messages) >= 2


def test_a_segmentation_with_its_sides_exchanged(cases: list[Loaded]) -> None:
    flipped = [replace(case, label=replace(case.label, array=case.label.array[::-1])) for case in cases]
    messages = [str(f) for case in flipped for f in examine(case) if f.check == "flipped"]
    assert len(messages) >= 3
    assert all("the segmentation fits" in text for text in messages)


def test_a_copied_file(cases: list[Loaded]) -> None:
    copied = with_image(cases[0], "t1ce", cases[0].images["t1"])
    first, second = examine(copied)
    assert first.rejects
    assert str(first).startswith("t1ce holds the same image as t1; replace or remove the file")
    assert str(second).startswith("t1 holds the same image as t1ce")
    assert not any(finding.rejects for finding in examine(copied, ["placeholder"]))
    assert list(copied.without_placeholders().images) == [
        "flair",
        "t2",
    ]  # there is no way to tell which of the two it is


def test_an_image_of_zeros(cases: list[Loaded]) -> None:
    (finding,) = examine(changed(cases[0], "t2", np.zeros_like))
    assert finding.rejects
    assert str(finding).startswith("t2 is 0 everywhere; replace or remove the file")
    nothing = replace(cases[0], images={"t2": changed(cases[0], "t2", np.zeros_like).images["t2"]})
    with pytest.raises(InputError, match="all images are empty or copies: t2 is 0 everywhere"):
        examine(nothing, ["placeholder"])


def test_an_image_without_a_finite_voxel_is_a_placeholder(cases: list[Loaded]) -> None:
    lost = changed(cases[0], "t2", lambda a: np.full(a.shape, np.nan, np.float32))
    assert str(examine(lost)[0]).startswith("t2 has no finite voxels; replace or remove the file")
    around = changed(cases[0], "t2", lambda a: np.where(cases[0].images["t1"].array == 0, np.nan, 0).astype(np.float32))
    assert str(examine(around)[0]).startswith("t2 is 0 everywhere")


def test_faint_noise_around_the_head_is_told(cases: list[Loaded]) -> None:
    rng = np.random.default_rng(0)

    def noisy(array: np.ndarray) -> np.ndarray:
        noise = rng.normal(scale=0.01, size=array.shape)
        noise[:, :, :24] = noise[[0, -1]] = noise[:, [0, -1]] = noise[:, :, [0, -1]] = 0
        return np.where(array == 0, noise, array).astype(np.float32)

    (finding,) = [f for f in examine(changed(cases[0], "flair", noisy)) if f.check == "background"]
    assert "of the voxels that are not 0 are close to 0, and count as brain" in str(finding)


def test_voxels_that_are_not_finite(cases: list[Loaded]) -> None:
    around = changed(cases[0], "t1", lambda a: np.where(a == 0, np.nan, a).astype(np.float32))
    assert found(around) == {"background-not-finite"}
    assert not any(finding.rejects for finding in examine(around))
    middle = tuple(n // 2 for n in cases[0].images["t1"].array.shape)
    inside = around.images["t1"].array.copy()
    inside[middle] = np.inf
    assert found(changed(around, "t1", lambda _: inside)) == {"background-not-finite"}  # a hole is like a 0
    inside[tuple(slice(n - 3, n + 3) for n in middle)] = np.nan
    findings = examine(changed(around, "t1", lambda _: inside))
    assert [(f.check, f.rejects) for f in findings] == [("not-finite", True), ("background-not-finite", False)]
    assert str(findings[0]).startswith("t1 has 216 voxels that are not finite")


APART = [(0.005, set()), (0.02, {"shift"}), (0.09, {"shift"}), (0.11, {"affine"})]


@pytest.mark.parametrize(("apart", "expected"), APART)
def test_images_apart_are_rejected_from_a_tenth_of_a_voxel(
    cases: list[Loaded], apart: float, expected: set[str]
) -> None:
    volume = cases[0].images["t2"]
    moved = volume.affine.copy()
    moved[0, 3] += apart
    assert found(with_image(cases[0], "t2", replace(volume, affine=moved))) == expected


def test_two_forms_of_a_header_that_disagree(cases: list[Loaded]) -> None:
    volume = cases[0].images["t1"]
    mirrored = volume.affine @ np.diag([-1.0, 1, 1, 1])
    odd = replace(volume, forms=replace(volume.forms, qform=mirrored))
    (finding,) = examine(with_image(cases[0], "t1", odd))
    assert (finding.check, finding.rejects) == ("forms", False)
    assert "mm apart, with left and right swapped" in str(finding)


def test_a_mirrored_affine(cases: list[Loaded]) -> None:
    volume = cases[0].images["t2"]
    odd = with_image(cases[0], "t2", replace(volume, affine=volume.affine @ np.diag([-1, 1, 1, 1])))
    assert {"mirrored", "affine"} <= found(odd)


def test_a_header_without_orientation(cases: list[Loaded]) -> None:
    odd = with_image(cases[0], "t1", replace(cases[0].images["t1"], forms=Forms(None, None)))
    assert str(examine(odd)[0]).startswith("t1: the header has no orientation")


def test_voxels_that_are_not_1_mm(cases: list[Loaded]) -> None:
    thick = np.diag([1.0, 1.0, 5.0, 1.0])
    odd = replace(
        cases[0],
        images={m: replace(v, affine=v.affine @ thick) for m, v in cases[0].images.items()},
        label=replace(cases[0].label, affine=cases[0].label.affine @ thick),
    )
    (finding,) = examine(odd)
    assert "1 x 1 x 5 mm" in str(finding)
    assert not finding.rejects


def test_background_that_is_not_zero(cases: list[Loaded]) -> None:
    assert "background" in found(changed(cases[0], "flair", lambda a: a + np.int16(5)))


def test_an_empty_and_an_outlying_segmentation(cases: list[Loaded]) -> None:
    label = cases[0].label
    empty = replace(cases[0], label=replace(label, array=label.array * 0), label_counts={0: label.array.size})
    assert found(empty) == {"label-empty"}
    outside = label.array.copy()
    outside[:2, 0, 0] = 2
    messages = [str(f) for f in examine(replace(cases[0], label=replace(label, array=outside)))]
    assert messages == ["2 voxels of the segmentation are where every image is 0 [label-outside]"]


def test_names_are_unique_and_unknown_ones_rejected(cases: list[Loaded]) -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for name in ("nonsense", "shape", "contrast"):
        with pytest.raises(InputError, match=r"allowed: placeholder, affine, mirrored, not-finite, no-class"):
            examine(cases[0], [name])


def test_one_modality_is_enough(cases: list[Loaded]) -> None:
    for name in cases[0].images:
        assert found(replace(cases[0], images={name: cases[0].images[name]}, label=None)) == set()


def test_a_label_that_fits_no_convention(tmp_path: Path, cases: list[Loaded]) -> None:
    odd = replace(cases[0], label_counts={0: 5, 9: 3})
    (finding,) = examine(odd)
    assert "9 (3 voxels)" in str(finding)

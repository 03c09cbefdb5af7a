"""Orientation and crop: any source is brought to one orientation and exactly back."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.errors import InputError
from preprocess.source.geometry import (
    Geometry,
    bounding_box,
    enclosing_box,
    from_canonical,
    make_geometry,
    to_canonical,
    to_source,
)

ORIENTATIONS = [
    "".join(codes)
    for order in permutations(("LR", "PA", "IS"))
    for codes in product(*order)
]  # fmt: skip
orientations = st.sampled_from(ORIENTATIONS)
shapes = st.tuples(*[st.integers(2, 7)] * 3)
sizes = st.tuples(*[st.floats(0.3, 4)] * 3)


def affine_of(orientation: str, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> np.ndarray:
    matrix = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(orientation), (5, 5, 5))
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.inv(matrix)[:3, :3] @ np.diag(spacing)
    affine[:3, 3] = (3.0, -7.0, 11.0)
    return affine


def test_all_48_orientations_are_tried() -> None:
    assert len(set(ORIENTATIONS)) == 48
    assert all("".join(nib.aff2axcodes(affine_of(code))) == code for code in ORIENTATIONS)


@given(orientation=orientations, shape=shapes, spacing=sizes)
def test_canonical_and_back_is_exact(orientation: str, shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    affine = affine_of(orientation, spacing)
    assert np.array_equal(from_canonical(to_canonical(array, affine), affine), array)


@given(orientation=orientations, shape=shapes)
def test_canonical_is_what_nibabel_says(orientation: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    affine = affine_of(orientation)
    expected = nib.as_closest_canonical(nib.Nifti1Image(array, affine)).dataobj
    assert np.array_equal(to_canonical(array, affine), np.asarray(expected).T)


@given(orientation=orientations, shape=shapes, data=st.data())
def test_crop_and_back(orientation: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    affine = affine_of(orientation)
    full = to_canonical(np.arange(1, np.prod(shape) + 1).reshape(shape), affine)
    box = tuple(
        slice(*sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))) for n in full.shape
    )
    geometry = make_geometry(shape, affine, box)
    back = to_source(full[box], geometry)
    expected = np.zeros_like(full)
    expected[box] = full[box]
    assert back.shape == shape
    assert np.array_equal(to_canonical(back, affine), expected)
    assert Geometry.model_validate_json(geometry.model_dump_json()) == geometry
    assert geometry.canonical_shape == full.shape
    assert geometry.orientation == orientation


@given(orientation=orientations, spacing=sizes)
def test_spacing_follows_the_axes(orientation: str, spacing: tuple[float, ...]) -> None:
    affine = affine_of(orientation, spacing)
    geometry = make_geometry((2, 2, 2), affine, (slice(0, 1), slice(0, 1), slice(0, 1)))
    along = {"S": 0, "I": 0, "A": 1, "P": 1, "R": 2, "L": 2}
    expected = [0.0, 0.0, 0.0]
    for code, size in zip(orientation, spacing, strict=True):
        expected[along[code]] = size
    assert np.allclose(geometry.spacing, expected)


@given(shape=shapes, data=st.data())
def test_bounding_box_is_the_smallest(shape: tuple[int, ...], data: st.DataObject) -> None:
    points = data.draw(st.lists(st.tuples(*[st.integers(0, n - 1) for n in shape]), min_size=1, max_size=4))
    array = np.zeros(shape, np.int16)
    for point in points:
        array[point] = -3
    box = bounding_box(array)
    columns = np.array(points).T
    assert box == tuple(slice(int(c.min()), int(c.max()) + 1) for c in columns)
    assert enclosing_box([box, box]) == box
    assert bounding_box(array * 0) is None


def test_wrong_shape_is_rejected() -> None:
    geometry = make_geometry((4, 4, 4), np.eye(4), (slice(0, 2), slice(0, 2), slice(0, 2)))
    with pytest.raises(ValueError, match="does not fit"):
        to_source(np.zeros((3, 2, 2)), geometry)


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_affine_without_direction_is_rejected(affine: np.ndarray) -> None:
    with pytest.raises(InputError, match="not give the axes a direction"):
        to_canonical(np.zeros((2, 2, 2)), affine)

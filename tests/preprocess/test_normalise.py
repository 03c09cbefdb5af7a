"""Z-scores: own brain mask, storage precision, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from preprocess.errors import InputError
from preprocess.normalise import from_z_scores, z_scores

VOXELS = hnp.arrays(np.int16, (4, 5, 6), elements=st.integers(-500, 5000)).filter(
    lambda a: len(np.unique(a[a != 0])) > 1
)


@given(VOXELS)
def test_mean_0_and_deviation_1_inside_the_brain(array: np.ndarray) -> None:
    z, scale = z_scores(array)
    inside = array[array != 0].astype(np.float64)
    assert scale.mean == pytest.approx(inside.mean())
    assert scale.std == pytest.approx(inside.std())
    expected = (inside - inside.mean()) / inside.std()
    assert np.allclose(z[array != 0], expected, rtol=2**-10, atol=2**-13)


@given(VOXELS)
def test_zero_is_outside_and_only_outside(array: np.ndarray) -> None:
    z, _ = z_scores(array)
    assert np.array_equal(z == 0, array == 0)


@given(VOXELS)
def test_whole_numbers_come_back(array: np.ndarray) -> None:
    z, scale = z_scores(array)
    error = np.abs(from_z_scores(z, scale) - array)
    assert (error <= 2**-11 * np.abs(array - scale.mean) + 2**-13 * scale.std + 1e-3).all()
    assert (from_z_scores(z, scale)[array == 0] == 0).all()


@given(VOXELS)
def test_the_table_and_the_voxels_agree(array: np.ndarray) -> None:
    by_table, table_scale = z_scores(array)
    by_voxel, voxel_scale = z_scores(array.astype(np.float32))
    assert table_scale.mean == pytest.approx(voxel_scale.mean)
    assert np.allclose(by_table, by_voxel, rtol=2**-9, atol=2**-13)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize(("value", "message"), [(0, "every voxel is 0"), (7, "same value")])
def test_an_image_without_contrast_is_rejected(dtype: type, value: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        z_scores(np.full((3, 3, 3), value, dtype))


def test_voxels_that_are_not_finite_are_rejected() -> None:
    with pytest.raises(InputError, match="1 voxels are not finite"):
        z_scores(np.array([1.0, 2.0, np.nan], np.float32))

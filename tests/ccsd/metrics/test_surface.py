"""Surface distances against analytic shapes, a distance transform, and MONAI."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ccsd.metrics.surface import Surface, hd95, surface_scores, surface_voxels

Spacing = tuple[float, float, float]
Triple = tuple[int, int, int]


def cube(shape: Triple, start: Triple, size: Triple) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))] = True
    return mask


def random_masks(seed: int, shape: Triple = (9, 11, 10)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 1, 1, 1))
    return smooth[0] > 0.05, smooth[1] > 0.05


@pytest.mark.parametrize(("axis", "spacing"), [(0, (3.0, 1.0, 0.5)), (1, (3.0, 1.0, 0.5)), (2, (3.0, 1.0, 0.5))])
def test_slab_moved_along_an_axis_is_as_far_as_the_spacing_says(axis: int, spacing: Spacing) -> None:
    shape = (24, 24, 24)
    index = [slice(None)] * 3
    index[axis] = slice(5, 6)
    first = np.zeros(shape, bool)
    first[tuple(index)] = True
    second = np.roll(first, 4, axis)
    assert hd95(first, second, spacing) == pytest.approx(4 * spacing[axis])


def test_concentric_spheres_are_apart_by_the_difference_of_their_radii() -> None:
    z, y, x = np.ogrid[-30:31, -30:31, -30:31]
    radius = np.sqrt(z**2 + y**2 + x**2)
    assert hd95(radius <= 25, radius <= 15) == pytest.approx(10, abs=1)


def test_few_far_voxels_lie_beyond_the_95th_percentile() -> None:
    first = cube((40, 20, 20), (2, 2, 2), (12, 12, 12))
    outlier = first.copy()
    outlier[38, 10, 10] = True  # 1 of 777 surface voxels
    assert hd95(first, outlier) == 0
    assert surface_scores(Surface.of(first, (1, 1, 1)), Surface.of(outlier, (1, 1, 1))).nsd < 1


@settings(max_examples=40)
@example(93, (1 / 3, 1 / 3, 1 / 3))  # three voxels of a third of a millimetre are within a millimetre
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.floats(0.3, 4.0)] * 3))
def test_distances_equal_those_of_a_distance_transform_of_the_whole_volume(seed: int, spacing: Spacing) -> None:
    first, second = random_masks(seed)
    if not first.any() or not second.any():
        return

    def edge(mask: np.ndarray) -> np.ndarray:
        return mask & ~ndimage.binary_erosion(mask)

    there = ndimage.distance_transform_edt(~edge(second), sampling=spacing)[edge(first)]
    back = ndimage.distance_transform_edt(~edge(first), sampling=spacing)[edge(second)]
    scores = surface_scores(Surface.of(first, spacing), Surface.of(second, spacing))
    assert scores.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert scores.hd95_pooled == pytest.approx(np.percentile(np.hstack([there, back]), 95))
    assert scores.nsd == pytest.approx(np.mean(np.hstack([there, back]) <= 1 + 1e-6))


@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 1.2)])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_monai(seed: int, spacing: Spacing) -> None:
    pytest.importorskip("monai", reason="a tool of development")
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    first, second = random_masks(seed, (20, 22, 18))
    tensors = [torch.from_numpy(m)[None, None].float() for m in (first, second)]
    distance = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=spacing)
    dice = compute_surface_dice(*tensors, class_thresholds=[1.0], include_background=True, spacing=spacing)
    scores = surface_scores(Surface.of(first, spacing), Surface.of(second, spacing))
    assert scores.hd95 == pytest.approx(float(distance), rel=1e-6)
    assert scores.nsd == pytest.approx(float(dice), rel=1e-6)


def test_surface_of_a_solid_cube_is_its_shell_and_the_edge_of_the_array_is_outside() -> None:
    shell = surface_voxels(np.ones((4, 5, 6), bool))
    assert len(shell) == 4 * 5 * 6 - 2 * 3 * 4
    assert [2, 2, 3] not in shell.tolist()


def test_empty_masks_have_no_surface_and_no_distance() -> None:
    empty = np.zeros((4, 4, 4), bool)
    assert Surface.of(empty, (1, 1, 1)).empty
    assert np.isnan(hd95(empty, ~empty))

"""Between voxel spacings: where voxels lie, what stays outside the brain, what a coarser grid averages."""

import pytest
import torch

from ccsd.inference.resample import needs_resampling, resample_image, resample_probabilities, target_shape


@pytest.mark.parametrize(
    ("spacing", "expected"), [((1.0, 1.0, 1.0), False), ((1.05, 0.95, 1.0), False), ((1.0, 1.0, 1.2), True)]
)
def test_spacings_within_a_tenth_are_taken_as_they_are(spacing, expected):
    assert needs_resampling(spacing, (1.0, 1.0, 1.0)) == expected


def test_same_box_has_voxels_by_the_ratio_of_each_axis():
    assert target_shape((10, 20, 30), (2.0, 1.0, 0.5), (1.0, 1.0, 1.0)) == (20, 20, 15)
    assert target_shape((1, 1, 1), (0.1, 0.1, 0.1), (1.0, 1.0, 1.0)) == (1, 1, 1)


@pytest.mark.parametrize("shape", [(20, 12, 6), (8, 30, 12)])
def test_brain_keeps_its_values_up_to_the_edge_and_its_outside_stays_0(shape):
    image = torch.zeros(1, 10, 12, 12)
    image[:, :, :, :6] = -1.5
    found = resample_image(image, shape)

    torch.testing.assert_close(found[found != 0], torch.full_like(found[found != 0], -1.5))
    assert ((found != 0).float().mean() - 0.5).abs() < 0.1


def test_ramp_stays_where_it_is_in_millimetres():
    ramp = torch.arange(16.0).expand(1, 4, 4, 16)  # voxel centres at i + 0.5
    fine = resample_probabilities(ramp, (4, 4, 32))

    torch.testing.assert_close(fine[0, 0, 0, 2:-2], (torch.arange(32.0)[2:-2] + 0.5) / 2 - 0.5)


def test_coarser_grid_averages_instead_of_picking():
    checks = (torch.arange(32) % 2).float().expand(1, 4, 4, 32)
    coarse = resample_probabilities(checks, (4, 4, 8))

    assert (coarse - 0.5).abs().max() < 0.1

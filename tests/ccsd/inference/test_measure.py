"""Volume, place and diameters of lesions, in any orientation and voxel size of the file."""

import math

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ccsd.inference.measure import diameters, measure_lesions
from preprocess.source.geometry import bounding_box, make_geometry, to_canonical
from support.tasks import GLIOMA, small_task

ET = GLIOMA.classes["ET"]


def measured(source: np.ndarray, affine: np.ndarray, task=GLIOMA):
    label = to_canonical(source, affine)
    box = bounding_box(label)
    geometry = make_geometry(source.shape, affine, box)
    return measure_lesions(np.ascontiguousarray(label[box]), geometry, task)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "IRA", "PIL"])
def test_a_box_has_the_same_size_and_place_whatever_the_axes_of_the_file(axes: str) -> None:
    source = np.zeros((24, 20, 10), np.uint8)
    source[4:10, 5:9, 3:5] = ET  # 6 x 4 voxels of 1 x 2 mm in a slice: 6 x 8 mm
    affine = np.diag([1.0, 2.0, 5.0, 1.0])
    affine[:3, 3] = [-10, 20, 30]
    image = nib.Nifti1Image(source, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    turned = image.as_reoriented(turn)
    (lesion,) = measured(np.asarray(turned.dataobj), turned.affine)["ET"]

    assert lesion.volume_mm3 == 6 * 4 * 2 * 10
    assert lesion.centroid_mm == pytest.approx(affine[:3] @ [6.5, 6.5, 3.5, 1])
    assert (lesion.longest_diameter_mm, lesion.perpendicular_diameter_mm) == pytest.approx((10.0, 7.5))
    axial = turned.affine[2, :3]
    along = int(np.argmax(np.abs(axial)))
    assert lesion.axial_slice in np.unique(np.nonzero(np.asarray(turned.dataobj))[along])


def test_a_tilted_file_is_measured_in_its_own_slices() -> None:
    source = np.zeros((40, 40, 4), np.uint8)
    source[10:22, 10:15, 1] = ET
    straight = np.diag([1.0, 1.5, 4.0, 1.0])
    tilted = straight.copy()
    tilted[:3, :3] = Rotation.from_euler("xz", [20, 15], degrees=True).as_matrix() @ straight[:3, :3]
    (first,), (second,) = (measured(source, affine)["ET"] for affine in (straight, tilted))

    assert first.longest_diameter_mm == pytest.approx(math.hypot(12, 7.5), abs=1e-3)
    assert second.longest_diameter_mm == pytest.approx(first.longest_diameter_mm, abs=2e-3)
    assert second.perpendicular_diameter_mm == pytest.approx(first.perpendicular_diameter_mm, abs=2e-3)


def test_diameters_of_known_shapes() -> None:
    y, x = np.mgrid[-40:41, -40:41]
    assert diameters((x / 30) ** 2 + (y / 12) ** 2 <= 1, np.eye(2)) == pytest.approx((61, 25), abs=0.5)
    assert diameters(np.ones((1, 1), bool), np.diag([3.0, 4.0])) == pytest.approx((5, 3.75))
    hollow = x**2 + y**2 <= 400
    assert diameters(hollow & (x**2 + y**2 > 100), np.eye(2)) == diameters(hollow, np.eye(2))


def test_the_slice_is_that_of_the_largest_product_and_lesions_come_by_size() -> None:
    source = np.zeros((40, 40, 6), np.uint8)
    source[2:30, 20, 1] = ET  # longest, and thin
    source[2:14, 14:26, 2] = ET
    source[35, 35, 5] = ET
    large, small = measured(source, np.eye(4))["ET"]

    assert (large.axial_slice, small.axial_slice) == (2, 5)
    assert large.longest_diameter_mm == pytest.approx(math.hypot(12, 12), abs=1e-3)
    assert (small.volume_mm3, small.centroid_mm) == (1, (35, 35, 5))
    assert large.volume_mm3 == 28 + 144


def test_what_is_one_lesion_is_what_the_metrics_say() -> None:
    task = small_task(1)  # whose rule unites what lies one voxel apart, and leaves out what has up to ten voxels
    source = np.zeros((20, 20, 20), np.uint8)
    source[2:6, 2:6, 2:6] = source[7:11, 2:6, 2:6] = source[15, 15, 15] = 1

    assert [lesion.volume_mm3 for lesion in measured(source, np.eye(4), task)["R0"]] == [128]
    apart = np.where(source == 1, np.uint8(ET), np.uint8(0))
    assert [lesion.volume_mm3 for lesion in measured(apart, np.eye(4))["ET"]] == [64, 64, 1]

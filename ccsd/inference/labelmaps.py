"""Label maps as NIfTI: written in the space and label numbers of the input, and read as classes on a grid."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from ccsd.errors import UsageError
from ccsd.metrics.regions import Labels
from preprocess.checks.grid import disagreement
from preprocess.errors import InputError
from preprocess.files import complete_or_absent
from preprocess.source import nifti
from preprocess.source.geometry import Geometry, to_canonical, to_source
from preprocess.source.labels import to_convention, to_internal
from preprocess.source.load import read_label
from preprocess.source.nifti import Volume
from preprocess.store.reader import CaseStore
from preprocess.task import LabelConvention

PLACE_TOLERANCE_MM = 0.1


@dataclass(frozen=True)
class LabelMap:
    """Classes, D x H x W, and the affine of their voxels in the order W, H, D (axes R, A, S)."""

    path: Path
    labels: Labels
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along D, H, W."""
        w, h, d = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return d, h, w


def write_labelmap(path: Path, labels: Labels, geometry: Geometry, convention: LabelConvention) -> None:
    """Write classes (cropped D x H x W) as NIfTI on the grid of the source, completely or not at all."""
    volume = to_source(to_convention(labels, convention), geometry)
    with complete_or_absent(path) as temporary:
        nifti.write(temporary, volume, geometry.matrix, geometry.forms)


def read_labelmap(path: Path, convention: LabelConvention) -> LabelMap:
    """Read a label map.

    Raises
    ------
    InputError
        If it cannot be read or has labels that the convention lacks; the message names the file.
    """
    volume, was_near = read_label(path)
    if was_near:
        print(f"{path}: label values were not whole numbers; rounded by less than 0.001", file=sys.stderr)
    if text := disagreement(volume):
        print(f"{path}: {text}", file=sys.stderr)
    return labelmap_of_array(path, volume, convention)


def labelmap_of_array(path: Path, volume: Volume, convention: LabelConvention) -> LabelMap:
    """Return the classes of a label map that has been read; `path` names it in messages.

    Raises
    ------
    InputError
        If it has labels that the convention lacks.
    """
    try:
        labels = to_internal(volume.array, convention)
        oriented = np.ascontiguousarray(to_canonical(labels, volume.affine))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return LabelMap(path, oriented, volume.affine @ _turn(volume.affine, volume.array.shape))


def labelmap_of(store: CaseStore) -> LabelMap:
    """Return the segmentation of a converted case on the whole grid of its source.

    Raises
    ------
    InputError
        If there is none, or its store is damaged.
    """
    geometry = store.meta.geometry
    labels = np.zeros(geometry.canonical_shape, np.uint8)
    labels[geometry.slices] = store.read_label()
    return LabelMap(store.root / store.case, labels, geometry.matrix @ _turn(geometry.matrix, geometry.shape))


def _turn(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the affine from voxels along R, A, S to those of the file."""
    turn: NDArray[np.float64] = orientations.inv_ornt_aff(orientations.io_orientation(affine), shape)
    return turn


def check_same_grid(first: LabelMap, second: LabelMap, *, ignore_place: bool) -> None:
    """Reject two label maps whose voxels are not the same points in space."""
    if first.labels.shape != second.labels.shape:
        raise UsageError(
            f"{first.path} has {_shape(first)} voxels but {second.path} has {_shape(second)}; "
            "bring the segmentation back to the grid of the images before scoring"
        )
    apart = _farthest_corner_mm(first, second)
    if apart > PLACE_TOLERANCE_MM and not ignore_place:
        raise UsageError(
            f"{first.path} and {second.path} are {apart:.1f} mm apart according to their headers; fix the header, "
            "or pass --ignore-affine to compare them voxel by voxel with the spacing of the reference"
        )


def _shape(labelmap: LabelMap) -> str:
    return " x ".join(str(side) for side in reversed(labelmap.labels.shape))


def _farthest_corner_mm(first: LabelMap, second: LabelMap) -> float:
    d, h, w = first.labels.shape
    corners = np.array([[x, y, z, 1.0] for x in (0, w - 1) for y in (0, h - 1) for z in (0, d - 1)])
    return float(np.linalg.norm((corners @ (first.affine - second.affine).T)[:, :3], axis=1).max())

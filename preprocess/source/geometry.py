"""From a file's axes to the internal orientation, and exactly back.

Internally, arrays have the axes D, H, W: down to up, back to front, left to right (a volume with the axes R, A, S,
transposed), cropped to a box.
"""

from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat

from preprocess.errors import InputError
from preprocess.source.nifti import Forms

Box = tuple[slice, slice, slice]
_Row = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
_FARTHEST_MM = 1e5
_SIZES_MM = (0.01, 100.0)
_RAS = np.array([[0, 1], [1, 1], [2, 1]])


class Geometry(BaseModel):
    """The position of a cropped D x H x W array in its source.

    Attributes
    ----------
    shape
        Voxels of the source along its own axes.
    affine
        4 x 4 matrix of the source, rows as tuples; voxel indices to millimetres, R A S.
    orientation
        Directions of the source's axes by its affine, e.g. `LPS`.
    box
        First and last + 1 voxel of the crop along D, H, W of the uncropped volume.
    sform_code, qform_code
        What the source's two forms refer to; 0 if unset.
    qform
        4 x 4 matrix of the source's qform, if it differs from the affine.
    """

    model_config = ConfigDict(frozen=True)

    shape: tuple[int, int, int]
    affine: tuple[_Row, _Row, _Row, _Row]
    orientation: str
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    sform_code: int = 1
    qform_code: int = 1
    qform: tuple[_Row, _Row, _Row, _Row] | None = None

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The affine as an array."""
        return np.array(self.affine, np.float64)

    @property
    def forms(self) -> Forms:
        """The sform and qform of a file on the grid of the source."""
        sform = self.matrix if self.sform_code else None
        qform = self.matrix if self.qform is None else np.array(self.qform, np.float64)
        return Forms(sform, qform if self.qform_code else None, self.sform_code, self.qform_code)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along D, H, W."""
        sizes = np.linalg.norm(self.matrix[:3, :3], axis=0).tolist()
        d, h, w = self._canonical_axes
        return sizes[d], sizes[h], sizes[w]

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """D, H, W of the uncropped volume."""
        d, h, w = self._canonical_axes
        return self.shape[d], self.shape[h], self.shape[w]

    @property
    def _canonical_axes(self) -> list[int]:
        """The axes of the source that become D, H, W."""
        right, anterior, superior = np.argsort(_transform(self.matrix)[:, 0]).tolist()
        return [superior, anterior, right]

    @property
    def to_source_voxels(self) -> NDArray[np.float64]:
        """4 x 4 matrix from indices d, h, w of the cropped array to voxel indices of the source."""
        turn: NDArray[np.float64] = orientations.inv_ornt_aff(orientations.io_orientation(self.matrix), self.shape)
        swap = np.eye(4)[[2, 1, 0, 3]]
        swap[[2, 1, 0], 3] = [first for first, _ in self.box]
        return turn @ swap

    @property
    def whole(self) -> "Geometry":
        """The same grid with a box that contains everything."""
        d, h, w = self.canonical_shape
        return self.model_copy(update={"box": ((0, d), (0, h), (0, w))})

    @property
    def slices(self) -> Box:
        """The box as slices of the uncropped D x H x W volume."""
        (d0, d1), (h0, h1), (w0, w1) = self.box
        return slice(d0, d1), slice(h0, h1), slice(w0, w1)


def make_geometry(
    shape: tuple[int, ...], affine: NDArray[np.float64], box: Box, forms: Forms | None = None
) -> Geometry:
    """Return the geometry of a source's grid and a crop box in D x H x W; without `forms` both forms are the affine."""
    forms = forms or Forms.same(affine)
    own_qform = forms.qform is not None and not np.array_equal(forms.qform, affine)
    return Geometry.model_validate(
        {
            "shape": shape,
            "affine": affine.tolist(),
            "orientation": "".join(orientations.aff2axcodes(affine)),
            "box": [(part.start, part.stop) for part in box],
            "sform_code": forms.sform_code,
            "qform_code": forms.qform_code,
            "qform": forms.qform.tolist() if forms.qform is not None and own_qform else None,
        }
    )


def to_canonical(array: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """Return a view of a source's X x Y x Z array as D x H x W.

    Raises
    ------
    InputError
        If the affine does not give the axes a direction.
    """
    canonical: NDArray[Any] = orientations.apply_orientation(array, _transform(affine)).T
    return canonical


def from_canonical(array: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """Return a view of an uncropped D x H x W array in the source's axes: the inverse of `to_canonical`."""
    back = orientations.ornt_transform(_RAS, orientations.io_orientation(affine))
    source: NDArray[Any] = orientations.apply_orientation(array.T, back)
    return source


def to_source(array: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Return a cropped D x H x W array in the source's axes and full shape, 0 outside the box.

    Raises
    ------
    ValueError
        If the array does not have the shape of the box.
    """
    expected = tuple(last - first for first, last in geometry.box)
    if array.shape != expected:
        raise ValueError(f"array of shape {array.shape} does not fit the box of shape {expected}")
    full = np.zeros(geometry.canonical_shape, array.dtype)
    full[geometry.slices] = array
    return np.asfortranarray(from_canonical(full, geometry.matrix))


def bounding_box(array: NDArray[Any]) -> Box | None:
    """Return the smallest box that contains every non-zero voxel of a volume; None if all are 0."""
    box: list[slice] = []
    rest = array.astype(bool, copy=False)
    for _ in range(rest.ndim):
        hit = np.flatnonzero(rest.any(axis=tuple(range(1, rest.ndim))))
        if hit.size == 0:
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
        rest = np.asarray(rest[box[-1]].any(axis=0))
    return box[0], box[1], box[2]


def enclosing_box(boxes: list[Box]) -> Box:
    """Return the smallest box around several boxes."""
    edges = [slice(min(b[axis].start for b in boxes), max(b[axis].stop for b in boxes)) for axis in range(3)]
    return edges[0], edges[1], edges[2]


def _transform(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how the axes of the source become R, A, S.

    Raises
    ------
    InputError
        If the affine does not give the axes a direction, or gives an impossible voxel size.
    """
    near = (np.abs(affine) <= _FARTHEST_MM).all()  # False for NaN, too
    found = nib.io_orientation(affine) if near else np.full((3, 2), np.nan)
    if np.isnan(found).any():
        raise InputError(
            f"affine does not give the axes a direction, or has numbers above {_FARTHEST_MM:g}: "
            f"{np.asarray(affine).tolist()}; correct the header"
        )
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if sizes.min() < _SIZES_MM[0] or sizes.max() > _SIZES_MM[1]:
        sides = " x ".join(f"{size:.3g}" for size in sizes)
        raise InputError(
            f"affine gives voxels of {sides} mm, expected {_SIZES_MM[0]:g} to {_SIZES_MM[1]:g}; correct the header"
        )
    return np.asarray(orientations.ornt_transform(found, _RAS), np.float64)

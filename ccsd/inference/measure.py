"""How large the lesions of a label map are, and where they lie."""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from ccsd.metrics.components import predicted_lesions
from ccsd.metrics.regions import Labels, Mask, region_mask
from preprocess.source.geometry import Geometry
from preprocess.task import Task

Points = npt.NDArray[np.float64]
_TIE_MM = 1e-6


class MeasuredLesion(BaseModel):
    """One lesion of a region: a connected component, by the task's rule for predictions.

    The diameters are those in the axial slice where their product is largest, as the RANO criteria measure a lesion
    (Wen et al., J Clin Oncol 2010 and 2023). The outline in the slice is the convex hull of the lesion's voxels, edges
    included. The diameters are the longest distance within it and the longest one perpendicular to that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    volume_mm3: float = Field(description="number of voxels times the volume of one voxel")
    centroid_mm: tuple[float, float, float] = Field(
        description="mean of the voxels' centres by the affine of the file: x to the right, y to the front, z up (RAS)"
    )
    longest_diameter_mm: float = Field(description="longest diameter in the axial slice")
    perpendicular_diameter_mm: float = Field(description="longest diameter perpendicular to it in the same slice")
    axial_slice: int = Field(description="index of the slice along the file's axis that is closest to down-up, from 0")


def measure_lesions(labels: Labels, geometry: Geometry, task: Task) -> dict[str, tuple[MeasuredLesion, ...]]:
    """Return the lesions of each region of a predicted label map, the largest first.

    Parameters
    ----------
    labels
        D x H x W, classes of the task, cropped to the box of the geometry.
    geometry
        Their position in the file.
    task
        The regions, and which voxels form one lesion (`ccsd.metrics.components`). If its rule leaves out small
        components of predictions, they are in the volumes of the regions but not among the lesions.
    """
    return {region: _of_region(labels, region, geometry, task) for region in task.regions}


def _of_region(labels: Labels, region: str, geometry: Geometry, task: Task) -> tuple[MeasuredLesion, ...]:
    numbers, _ = predicted_lesions(labels, region_mask(labels, region, task), region, task, geometry.spacing)
    boxes = enumerate(ndimage.find_objects(numbers), 1)
    to_file, matrix, voxel = geometry.to_source_voxels, geometry.matrix, float(np.prod(geometry.spacing))  # once
    found = [_measure(numbers[box] == n, box, to_file, matrix, voxel) for n, box in boxes if box is not None]
    return tuple(sorted(found, key=lambda lesion: -lesion.volume_mm3))


def _measure(inside: Mask, box: tuple[slice, ...], to_file: Points, matrix: Points, voxel_mm3: float) -> MeasuredLesion:
    corner = np.array([side.start for side in box])
    voxels = np.argwhere(inside) + corner
    to_mm = matrix @ to_file
    basis = np.linalg.qr(to_mm[:3, 1:3])[1]  # the slice's own coordinates, whatever its tilt
    sizes = {d: diameters(plane, basis) for d, plane in enumerate(inside) if plane.any()}
    chosen = max(sizes, key=lambda d: (np.prod(sizes[d]), -d))
    longest, perpendicular = sizes[chosen]
    axis = int(np.argmax(np.abs(to_file[:3, 0])))
    return MeasuredLesion(
        volume_mm3=_rounded(len(voxels) * voxel_mm3),
        centroid_mm=tuple(_rounded(x) for x in (to_mm @ [*voxels.mean(axis=0), 1.0])[:3]),
        longest_diameter_mm=_rounded(longest),
        perpendicular_diameter_mm=_rounded(perpendicular),
        axial_slice=round(float((to_file @ [chosen + corner[0], *corner[1:], 1.0])[axis])),
    )


def diameters(plane: Mask, basis: Points) -> tuple[float, float]:
    """Return the longest diameter of a mask in a slice, and the longest one perpendicular to it, in mm.

    Parameters
    ----------
    plane
        H x W, with at least one voxel.
    basis
        2 x 2; from steps along H and W to millimetres along two directions of the slice that are perpendicular.
    """
    rows = np.flatnonzero(plane.any(axis=1))
    first, last = plane[rows].argmax(axis=1), plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.c_[rows + h, w] for h in (-0.5, 0.5) for w in (first - 0.5, last + 0.5)])
    outline = ends @ basis.T
    hull = outline[ConvexHull(outline).vertices]
    apart = squareform(pdist(hull))
    longest = float(apart.max())
    pairs = np.argwhere(np.triu(apart) >= longest - _TIE_MM)
    return longest, max(_across(hull, hull[b] - hull[a]) for a, b in pairs)


def _across(hull: Points, direction: Points) -> float:
    """Return the longest chord of a convex polygon that is perpendicular to a direction: it passes through a corner."""
    along, side = direction / np.linalg.norm(direction), np.array([-direction[1], direction[0]])
    t, s = hull @ along, hull @ (side / np.linalg.norm(side))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (t[:, None] - t) / (np.roll(t, -1) - t)
        crossing = s + share * (np.roll(s, -1) - s)
    crossing[~((share >= -_TIE_MM) & (share <= 1 + _TIE_MM))] = np.nan  # edges that miss the line, or lie along it
    return float(np.max(np.nanmax(crossing, axis=1) - np.nanmin(crossing, axis=1)))


def _rounded(number: float) -> float:
    """Return millimetres without digits that are only rounding error."""
    return round(float(number), 3)

"""Distances between the surfaces of two regions: HD95 and normalised surface Dice.

A surface voxel is a voxel of the region with one of its 6 neighbours outside (beyond the array is outside), as in MONAI
and medpy. Only surface voxels are examined, with a k-d tree: the distances are exactly those of a distance transform of
the whole volume, at a fraction of its cost.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from ccsd.metrics.regions import Mask, Spacing
from preprocess.source.geometry import bounding_box

Distances = npt.NDArray[np.float64]
Voxels = npt.NDArray[np.intp]
REACH = 2
"""Neighbours are examined up to this many voxels away."""
_DIGITS = 9
_ROUNDING = 1e-8


def surface_voxels(mask: Mask) -> Voxels:
    """Return the indices (N x 3) of the voxels of a region that have one of their 6 neighbours outside."""
    box = bounding_box(mask)
    if box is None:
        return np.empty((0, mask.ndim), np.intp)
    padded = np.pad(mask[box], 1)
    inside = padded[(slice(1, -1),) * mask.ndim]
    interior = inside.copy()
    for axis in range(mask.ndim):
        for start in (0, 2):
            window = [slice(1, -1)] * mask.ndim
            window[axis] = slice(start, padded.shape[axis] - 2 + start)
            interior &= padded[tuple(window)]
    return np.asarray(np.argwhere(inside & ~interior) + [side.start for side in box], np.intp)


@dataclass(frozen=True)
class Surface:
    """The surface of one region, built once and compared with any number of others."""

    voxels: Voxels
    """N x 3, indices."""
    spacing: Spacing
    """Millimetres between voxels along the three axes."""

    @classmethod
    def of(cls, mask: Mask, spacing: Spacing) -> "Surface":
        """Return the surface of a mask whose voxels are `spacing` millimetres apart, in the order of its axes."""
        return cls(surface_voxels(mask), spacing)

    def moved(self, offset: npt.ArrayLike) -> "Surface":
        """Return the surface shifted by whole voxels."""
        return Surface(self.voxels + np.asarray(offset, np.intp), self.spacing)

    @property
    def empty(self) -> bool:
        """Whether the region has no voxel."""
        return len(self.voxels) == 0

    @cached_property
    def points(self) -> Distances:
        """N x 3, in millimetres."""
        return np.asarray(self.voxels * np.asarray(self.spacing), np.float64)

    @cached_property
    def _tree(self) -> KDTree:
        # A tree of median cuts costs more to build than these few queries save.
        return KDTree(self.points, balanced_tree=False)

    def distances_to(self, other: "Surface") -> Distances:
        """Return each surface voxel's distance in millimetres to the nearest surface voxel of `other`.

        Most surface voxels of a prediction lie within a voxel or two of the reference, where checking the neighbours in
        order of distance is faster than a search; the others are found by a search.
        """
        distances = np.empty(len(self.voxels), np.float64)
        low = np.minimum(self.voxels.min(axis=0), other.voxels.min(axis=0)) - REACH
        shape = np.maximum(self.voxels.max(axis=0), other.voxels.max(axis=0)) + REACH + 1 - low
        strides = np.array([shape[1] * shape[2], shape[2], 1])
        taken = np.zeros(int(np.prod(shape)), bool)
        taken[(other.voxels - low) @ strides] = True
        here = (self.voxels - low) @ strides
        left = np.arange(len(here))
        for distance, offsets in _neighbours(self.spacing):
            hit = taken[here[left, None] + offsets @ strides].any(axis=1)
            distances[left[hit]] = distance
            left = left[~hit]
        distances[left] = other._tree.query(self.points[left])[0]  # noqa: SLF001 - a method of the same class
        return distances


@cache
def _neighbours(spacing: Spacing) -> list[tuple[float, Voxels]]:
    """Return the offsets of neighbours by increasing distance, up to where all nearer ones are included."""
    steps = np.arange(-REACH, REACH + 1)
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = np.linalg.norm(offsets * np.asarray(spacing), axis=1)
    complete = lengths <= REACH * min(spacing) + _ROUNDING
    found = np.unique(lengths[complete].round(_DIGITS))
    groups = [np.flatnonzero(complete & (np.abs(lengths - distance) < _ROUNDING)) for distance in found]
    return [(float(lengths[group[0]]), offsets[group]) for group in groups]


@dataclass(frozen=True)
class SurfaceScores:
    """The measures between two surfaces, in millimetres and as a share."""

    hd95: float
    """The larger of the two directions' 95th percentiles (BraTS, MONAI)."""
    hd95_pooled: float
    """The 95th percentile of both directions' distances together (medpy, and with it most published tables)."""
    nsd: float
    """The share of surface voxels of both within the tolerance of the other surface."""


def surface_scores(first: Surface, second: Surface, tolerance_mm: float = 1.0) -> SurfaceScores | None:
    """Compare two surfaces; return None if one of them is empty, because no distance is defined then."""
    if first.empty or second.empty:
        return None
    there, back = first.distances_to(second), second.distances_to(first)
    both = np.concatenate([there, back])
    return SurfaceScores(
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        hd95_pooled=float(np.percentile(both, 95)),
        nsd=float(np.mean(both <= tolerance_mm + _ROUNDING)),
    )


def hd95(first: Mask, second: Mask, spacing: Spacing = (1.0, 1.0, 1.0)) -> float:
    """Return the 95th percentile Hausdorff distance in millimetres of two masks, NaN if one of them is empty."""
    scores = surface_scores(Surface.of(first, spacing), Surface.of(second, spacing))
    return float("nan") if scores is None else scores.hd95

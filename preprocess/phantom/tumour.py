"""A glioma: oedema around a core whose rim enhances and whose middle is necrotic."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.phantom.anatomy import Anatomy
from preprocess.phantom.fields import Array, Grid, soft

NECROTIC, OEDEMA, ENHANCING = 1, 2, 3
"""Parts of a tumour; `preprocess.phantom.classes` turns them into classes of a task."""
_RADIUS = (0.30, 0.47)
_CORE_SHARE = (0.55, 0.75)
_NECROSIS_SHARE = (0.50, 0.76)
_SECOND_LESION = 0.15
_SKIN = 0.02  # brain units kept free below the surface
_FROM_VENTRICLE = 0.03
_FROM_MIDLINE = 0.12


@dataclass(frozen=True)
class Tumour:
    """The parts of a tumour, and soft maps (0 to 1) of what the images show.

    Attributes
    ----------
    label
        uint8, the parts above.
    oedema, core
        What all contrasts show: the whole tumour, and a blurred core whose border differs from that of the label.
    enhancing, necrosis
        What only T1ce shows.
    """

    label: NDArray[np.uint8]
    oedema: Array
    core: Array
    enhancing: Array
    necrosis: Array


def make_tumour(grid: Grid, anatomy: Anatomy, rng: np.random.Generator) -> Tumour:
    """Draw a tumour of random position, size and shape; occasionally with a smaller second lesion."""
    tumour = _lesion(grid, anatomy, rng, rng.uniform(*_RADIUS))
    if rng.random() < _SECOND_LESION:
        other = _lesion(grid, anatomy, rng, 0.55 * rng.uniform(*_RADIUS))
        tumour = _union(tumour, other)
    return tumour


def _lesion(grid: Grid, anatomy: Anatomy, rng: np.random.Generator, radius: float) -> Tumour:
    centre = _place(grid, anatomy, rng, radius)
    core_radius = radius * rng.uniform(*_CORE_SHARE)
    core_centre = centre + rng.uniform(-0.12, 0.12, 3) * radius
    warp = [grid.field(rng, cells) for cells in (4.0, 5.5, 6.5, 4.5)]

    whole = grid.ellipsoid(centre, radius * rng.uniform(0.85, 1.15, 3))
    whole = whole + 0.2 * warp[0] - 0.2 * anatomy.white + 0.25 * anatomy.csf  # oedema follows white matter
    core = grid.ellipsoid(core_centre, core_radius * rng.uniform(0.9, 1.1, 3)) + 0.17 * warp[1]
    dead = core + 0.14 * warp[2] - rng.uniform(*_NECROSIS_SHARE)
    gap = warp[3] - 1.4  # parts of the rim that do not enhance

    in_brain = anatomy.brain & (anatomy.ventricle < 0) & (anatomy.depth > _SKIN)
    in_core = (core < 1) & in_brain
    in_whole = ((whole < 1) & (anatomy.csf <= anatomy.white + anatomy.grey) & in_brain) | in_core
    in_rim = in_core & (dead > 0) & (gap < 0)
    label = np.zeros(grid.shape, np.uint8)
    label[in_whole] = OEDEMA
    label[in_core] = NECROTIC
    label[in_rim] = ENHANCING

    kept = in_brain.astype(np.float32)
    edge = 1 / (grid.unit * core_radius)
    blurred = core + 0.22 * grid.field(rng, 4.0) - 0.95
    inside = soft(1 - core, edge) * kept
    rim = inside * soft(dead, edge) * soft(-gap, 0.3)
    return Tumour(
        label, np.maximum(soft(1 - whole, 0.12) * kept, inside), soft(-blurred, 0.7) * kept, rim, inside - rim
    )


def _place(grid: Grid, anatomy: Anatomy, rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Draw a centre in the hemispheres, deep enough for most of the tumour to lie in the brain."""
    allowed = (
        anatomy.brain
        & (anatomy.ventricle < -_FROM_VENTRICLE)
        & (anatomy.depth > min(0.55 * radius, 0.8 * anatomy.depth.max()))
    )
    allowed &= np.abs(grid.axes[0]) > _FROM_MIDLINE
    index = np.unravel_index(rng.choice(np.flatnonzero(allowed)), grid.shape)
    return np.array([axis.ravel()[i] for axis, i in zip(grid.axes, index, strict=True)], np.float64)


def _union(first: Tumour, second: Tumour) -> Tumour:
    """Overlay two lesions; where both are, the inner class of the two wins."""
    inner = np.array([0, 2, 1, 3], np.uint8)  # rank of background, necrosis, oedema, rim; the map is its own inverse
    label = inner[np.maximum(inner[first.label], inner[second.label])]
    maps = [
        np.maximum(getattr(first, name), getattr(second, name)) for name in ("oedema", "core", "enhancing", "necrosis")
    ]
    return Tumour(label, *maps)

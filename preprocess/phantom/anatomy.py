"""A healthy head: brain mask, CSF, grey and white matter with a folded cortex, ventricles and deep nuclei."""

from dataclasses import dataclass

import numpy as np

from preprocess.phantom.fields import HEAD, Array, Grid, Mask

_VENTRICLES = (
    ((0.10, -0.22, 0.12), (0.055, 0.20, 0.09)),  # frontal horns
    ((0.15, 0.18, 0.10), (0.055, 0.26, 0.08)),  # bodies and occipital horns
)
_NUCLEI = (
    ((0.13, 0.06, -0.04), (0.09, 0.13, 0.10)),  # thalami
    ((0.27, -0.08, -0.03), (0.07, 0.19, 0.12)),  # putamina
)


@dataclass(frozen=True)
class Anatomy:
    """Soft tissue maps (0 to 1) of one head.

    Attributes
    ----------
    brain
        Voxels that are not removed with the skull.
    depth
        Approximate distance from the brain's surface, in brain units.
    csf, grey, white
        Shares of the tissues; they add up to 1.
    ventricle
        Signed distance-like map, positive inside the ventricles, in brain units.
    """

    brain: Mask
    depth: Array
    csf: Array
    grey: Array
    white: Array
    ventricle: Array


def make_anatomy(grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Draw one head; proportions, folds and ventricles differ from head to head."""
    axes = np.array(HEAD) * rng.uniform(0.93, 1.02, 3)
    surface = 1 + 0.025 * grid.field(rng, 2.5)
    depth = (surface - grid.ellipsoid((0, 0, 0), axes)) * np.float32(HEAD[0])
    depth = np.minimum(depth, (grid.axes[2] + 0.62 * axes[2]) * 0.8 + 0.04 * grid.field(rng, 2.0))  # flat base
    ventricle = _ventricles(grid, rng)
    csf_map, grey_map = _cortex(grid, rng, depth)
    csf = np.maximum(grid.inside(csf_map), grid.inside(ventricle))
    grey = np.maximum(grid.inside(grey_map), grid.inside(_nuclei(grid, rng))) * (1 - csf)
    return Anatomy(depth > 0, depth, csf, grey, 1 - csf - grey, ventricle)


def _cortex(grid: Grid, rng: np.random.Generator, depth: Array) -> tuple[Array, Array]:
    """Return maps that are positive in outer CSF and in the cortical ribbon, which follows the sulci inwards."""
    fold = np.abs(grid.field(rng, 6.5))
    reach = 0.24 + 0.06 * grid.field(rng, 2.0)
    x, _, z = grid.axes
    fissure = np.minimum(0.022 - np.abs(x), 0.35 - depth + 0.2 * np.maximum(z, 0))
    sulcus = np.minimum(0.055 - 0.25 * fold, reach - 0.06 - depth)
    csf = np.maximum(np.maximum(0.012 - depth, sulcus), fissure)
    ribbon = np.minimum(0.17 - 0.25 * fold, reach - depth)
    grey = np.maximum(np.maximum(0.085 - depth, ribbon), fissure + 0.06)
    return csf, grey


def _ventricles(grid: Grid, rng: np.random.Generator) -> Array:
    size = rng.uniform(0.85, 1.5)
    wobble = 0.06 * grid.field(rng, 4.0)
    parts = [0.02 * (1 - grid.ellipsoid((0, 0.02, -0.06), (0.02 * size, 0.12, 0.10)))]
    for (x, y, z), radii in _VENTRICLES:
        scaled = np.array(radii) * (size, rng.uniform(0.9, 1.15), size)
        parts += [scaled[0] * (1 + wobble - grid.ellipsoid((side * x, y, z), scaled)) for side in (-1, 1)]
    return np.asarray(np.maximum.reduce(parts), np.float32)


def _nuclei(grid: Grid, rng: np.random.Generator) -> Array:
    parts = []
    for (x, y, z), radii in _NUCLEI:
        scaled = np.array(radii) * rng.uniform(0.9, 1.1, 3)
        parts += [radii[0] * (1 - grid.ellipsoid((side * x, y, z), scaled)) for side in (-1, 1)]
    return np.asarray(np.maximum.reduce(parts), np.float32)

"""MR signal of a head with a tumour: contrasts, distractors, bias field, Rician noise."""

import numpy as np
from numpy.typing import NDArray

from preprocess.modalities import MODALITIES
from preprocess.phantom.anatomy import Anatomy
from preprocess.phantom.fields import Array, Grid, Mask
from preprocess.phantom.tumour import Tumour

_SIGNAL = {
    #         CSF   grey  white oedema core
    "flair": (0.12, 0.72, 0.52, 1.15, 0.92),
    "t1": (0.22, 0.62, 0.90, 0.60, 0.44),
    "t1ce": (0.22, 0.64, 0.92, 0.62, 0.52),
    "t2": (1.45, 0.66, 0.45, 1.08, 1.26),
}
"""Relative signal of tissues; the lesion's values are blended in by its soft maps."""
_ENHANCED = 1.50
_NECROTIC = 0.30
_VESSEL = 1.65
_CAP = 1.20


def make_images(
    grid: Grid, anatomy: Anatomy, tumour: Tumour, rng: np.random.Generator, difficulty: float
) -> dict[str, NDArray[np.int16]]:
    """Return the four images, int16, exactly 0 outside the brain and above 0 inside it.

    `difficulty` from 0 to 1 raises noise, bias field and distractors and lowers the lesion's contrast.
    """
    vessels, caps, plexus = _vessels(grid, anatomy, rng), _caps(grid, anatomy, rng), _plexus(grid, anatomy, rng)
    strength = 0.4 + 0.6 * difficulty
    images = {}
    for name in MODALITIES:
        signal = _tissue_signal(name, grid, anatomy, tumour, rng, contrast=1 - 0.4 * difficulty)
        if name == "t1ce":
            contrast = 1 - 0.25 * difficulty
            signal += contrast * tumour.enhancing * (_ENHANCED - signal)
            signal += contrast * tumour.necrosis * (_NECROTIC - signal)
            signal += strength * np.maximum(vessels, plexus) * (_VESSEL - signal)
        if name == "flair":
            signal += strength * caps * (_CAP - signal)
        images[name] = _acquire(signal, anatomy.brain, grid, rng, difficulty)
    return images


def _tissue_signal(
    name: str, grid: Grid, anatomy: Anatomy, tumour: Tumour, rng: np.random.Generator, *, contrast: float
) -> Array:
    csf, grey, white, oedema, core = _SIGNAL[name]
    signal = csf * anatomy.csf + grey * anatomy.grey + white * anatomy.white
    signal *= 1 + 0.03 * grid.field(rng, 6.0)
    lesion = oedema + (core - oedema) * tumour.core + 0.05 * grid.field(rng, 5.0)
    return np.asarray(signal + contrast * tumour.oedema * (lesion - signal), np.float32)


def _acquire(signal: Array, brain: Mask, grid: Grid, rng: np.random.Generator, difficulty: float) -> NDArray[np.int16]:
    """Apply a bias field, Rician noise and an arbitrary scanner gain."""
    bias = np.exp((0.05 + 0.12 * difficulty) * grid.field(rng, 0.8))
    sigma = 0.02 + 0.06 * difficulty
    real = signal * bias + sigma * rng.standard_normal(grid.shape, np.float32)
    magnitude: Array = np.hypot(real, sigma * rng.standard_normal(grid.shape, np.float32))
    gain = rng.uniform(180, 900)
    return np.where(brain, np.clip(np.rint(gain * magnitude), 1, 32767), 0).astype(np.int16, copy=False)


def _vessels(grid: Grid, anatomy: Anatomy, rng: np.random.Generator) -> Array:
    """Return thin bright tubes: where two smooth fields are both near zero, plus the sagittal sinus."""
    radius = np.hypot(grid.field(rng, 2.2), grid.field(rng, 2.2))
    tubes = grid.inside(np.minimum(0.035 - 0.25 * radius, 0.32 - anatomy.depth), 1.2)
    x, _, z = grid.axes
    sinus = grid.inside(np.minimum(np.minimum(0.035 - np.abs(x), 0.06 - anatomy.depth), z - 0.1), 1.2)
    return np.maximum(tubes, sinus)


def _caps(grid: Grid, anatomy: Anatomy, rng: np.random.Generator) -> Array:
    """Return bright caps around the ventricles' ends and a few spots in the white matter."""
    patches = grid.inside(0.2 * (grid.field(rng, 3.0) - 0.1), 1.5)
    rim = grid.inside(anatomy.ventricle + 0.055, 1.2) * (1 - grid.inside(anatomy.ventricle, 1.2))
    spots = grid.inside(0.15 * (grid.field(rng, 6.0) - 2.6), 1.0) * anatomy.white
    both: Array = np.maximum(rim * patches, spots)
    return both


def _plexus(grid: Grid, anatomy: Anatomy, rng: np.random.Generator) -> Array:
    """Return the choroid plexus: enhancing strands inside the ventricles."""
    return grid.inside(0.1 * (grid.field(rng, 7.0) - 1.2)) * grid.inside(anatomy.ventricle - 0.01)

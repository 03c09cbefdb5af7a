"""MR signal of a head with a tumour: contrasts, distractors, bias field, Rician noise."""

from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from preprocess.phantom.anatomy import Anatomy
from preprocess.phantom.classes import Extra
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
_OTHER_LEVELS = (0.20, 0.45, 0.70, 0.95, 1.20)
"""Levels of the same tissues in any other sequence, which shuffles them."""
_OTHER_JITTER = 0.08
_ENHANCED = 1.50
_NECROTIC = 0.30
_VESSEL = 1.65
_CAP = 1.20


def make_images(
    grid: Grid,
    anatomy: Anatomy,
    tumour: Tumour,
    rng: np.random.Generator,
    difficulty: float,
    *,
    sequences: Iterable[str],
    extras: Iterable[Extra] = (),
) -> dict[str, NDArray[np.int16]]:
    """Return an image by sequence, int16, exactly 0 outside the brain and above 0 inside it.

    `difficulty` from 0 to 1 raises noise, bias field and distractors and lowers the lesion's contrast. An image depends
    on its own name, not on which others are requested: `rng` always draws the four usual ones, and then a seed from
    which every other sequence gets its own stream.
    """
    vessels, caps, plexus = _vessels(grid, anatomy, rng), _caps(grid, anatomy, rng), _plexus(grid, anatomy, rng)
    strength = 0.4 + 0.6 * difficulty
    images = {}
    for name, levels in _SIGNAL.items():
        signal = _tissue_signal(levels, grid, anatomy, tumour, rng, contrast=1 - 0.4 * difficulty)
        if name == "t1ce":
            contrast = 1 - 0.25 * difficulty
            signal += contrast * tumour.enhancing * (_ENHANCED - signal)
            signal += contrast * tumour.necrosis * (_NECROTIC - signal)
            signal += strength * np.maximum(vessels, plexus) * (_VESSEL - signal)
        if name == "flair":
            signal += strength * caps * (_CAP - signal)
        signal = _with_extras(signal, name, levels, extras)
        images[name] = _acquire(signal, anatomy.brain, grid, rng, difficulty)
    seed = int(rng.integers(2**32))
    for name in sequences:
        if name not in images:
            own = np.random.default_rng([seed, _key(name)])
            others = _other_levels(name)
            signal = _tissue_signal(others, grid, anatomy, tumour, own, contrast=1 - 0.4 * difficulty)
            signal = _with_extras(signal, name, others, extras)
            images[name] = _acquire(signal, anatomy.brain, grid, own, difficulty)
    return {name: images[name] for name in sequences}


def _key(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:4], "little")


def _other_levels(name: str) -> tuple[float, ...]:
    """Return the signal of each tissue in any other sequence, derived from its name and the same in every head."""
    rng = np.random.default_rng(_key(name))
    levels = rng.permutation(_OTHER_LEVELS) + rng.uniform(-_OTHER_JITTER, _OTHER_JITTER, len(_OTHER_LEVELS))
    return tuple(levels.tolist())


def _with_extras(signal: Array, name: str, levels: tuple[float, ...], extras: Iterable[Extra]) -> Array:
    """Draw parts that the usual tumour does not have: fluid as bright as CSF, others scaled by sequence."""
    for extra in extras:
        factor = np.random.default_rng([_key(name), _key(extra.name)]).uniform(0.5, 1.6)
        target = signal * factor if extra.fluid is None else signal + extra.fluid * (levels[0] - signal)
        signal = np.where(extra.where, target, signal).astype(np.float32)
    return signal


def _tissue_signal(
    levels: tuple[float, ...],
    grid: Grid,
    anatomy: Anatomy,
    tumour: Tumour,
    rng: np.random.Generator,
    *,
    contrast: float,
) -> Array:
    csf, grey, white, oedema, core = levels
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

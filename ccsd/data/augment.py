"""Random variation of patches, as batched tensor operations on the device the patches are on.

Chance is drawn for each sample from its own key, on the host; each change is then one operation on all the samples it
applies to. The result does not depend on the batch a sample is in, on the process, or on what was drawn before.
Background stays 0 and absent modalities stay 0.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from ccsd.data import intensity, spatial
from ccsd.data.intensity import Generators
from ccsd.randomness import Stream, generator

Key = tuple[int, int, int]

_INTENSITY: tuple[tuple[float, Callable[[Tensor, Tensor, Generators], Tensor]], ...] = (
    (0.15, intensity.noise),
    (0.15, intensity.blur),
    (0.15, intensity.brightness),
    (0.15, intensity.contrast),
    (0.15, intensity.low_resolution),
    (0.30, intensity.gamma),
)
"""Probability that a sample is varied so, and how; in the order in which it is done."""
_AFFINE = 0.25
_FLIP = 0.5


def augment(image: Tensor, label: Tensor, available: Tensor, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
    """Return varied copies of patches: flips, rotation and scale, noise, blur, brightness, contrast, resolution, gamma.

    Parameters
    ----------
    image
        B x M x D x H x W float32 z-scores, 0 outside the brain.
    label
        B x D x H x W classes.
    available
        B x M bool.
    keys
        (seed, step, sample number) by sample; equal keys give equal results on the same kind of device.
    """
    rngs = [generator(Stream.AUGMENTATION, *key) for key in keys]
    image, label = image.clone(), label.clone()
    for axis in (-3, -2, -1):
        rows = _selected(rngs, _FLIP)
        image[rows], label[rows] = image[rows].flip(axis), label[rows].flip(axis)
    rows = _selected(rngs, _AFFINE)
    if rows:
        image[rows], label[rows] = spatial.turn_and_scale(image[rows], label[rows], [rngs[row] for row in rows])
    mask = (image != 0) & available.to(image.device)[..., None, None, None]
    for probability, change in _INTENSITY:
        rows = _selected(rngs, probability)
        if rows:
            image[rows] = change(image[rows], mask[rows], [rngs[row] for row in rows])
    return image * mask, label


def _selected(rngs: Generators, probability: float) -> list[int]:
    """Return the samples that a change applies to."""
    return [row for row, rng in enumerate(rngs) if rng.random() < probability]

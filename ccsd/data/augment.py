"""Random augmentation of patches, as batched tensor operations on the device the patches are on.

Random numbers are drawn on the host, for each sample from its own key; each transform is then one operation on all the
samples it applies to. The result does not depend on a sample's batch, on the process, or on what was drawn before.
Background stays 0 and absent modalities stay 0.
"""

from collections.abc import Callable, Sequence

import torch
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
"""Probability that a transform applies to a sample, and the transform; in the order of application."""
_AFFINE = 0.25
_FLIP = 0.5


def augment(image: Tensor, label: Tensor, available: Tensor, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
    """Return augmented patches (copies): flips, rotation, scale, noise, blur, brightness, contrast, resolution, gamma.

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
        for row in _selected(rngs, _FLIP):
            image[row], label[row] = image[row].flip(axis), label[row].flip(axis)
    rows = _selected(rngs, _AFFINE)
    if rows:
        turned = spatial.turn_and_scale(_take(image, rows), _take(label, rows), [rngs[row] for row in rows])
        _put(image, rows, turned[0])
        _put(label, rows, turned[1])
    mask = (image != 0) & available.to(image.device)[..., None, None, None]
    for probability, change in _INTENSITY:
        rows = _selected(rngs, probability)
        if rows:
            _put(image, rows, change(_take(image, rows), _take(mask, rows), [rngs[row] for row in rows]))
    return image * mask, label


def _take(values: Tensor, rows: list[int]) -> Tensor:
    """Return some samples. Goes row by row, as `_put` does, because indexing with a list waits for the GPU."""
    return torch.stack([values[row] for row in rows])


def _put(values: Tensor, rows: list[int], changed: Tensor) -> None:
    for position, row in enumerate(rows):
        values[row] = changed[position]


def _selected(rngs: Generators, probability: float) -> list[int]:
    """Return the indices of the samples that a transform applies to."""
    return [row for row, rng in enumerate(rngs) if rng.random() < probability]

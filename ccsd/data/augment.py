"""Random variation of patches, as tensor operations on the device the patches are on.

Each sample is varied on its own, from its own key: the result does not depend on the batch it is in, on the process, or
on what was drawn before. Background stays 0 and absent modalities stay 0.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ccsd.data import intensity, spatial

Key = tuple[int, int, int]

_INTENSITY: tuple[tuple[float, Callable[[Tensor, Tensor, np.random.Generator], Tensor]], ...] = (
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
        B x 4 x D x H x W float32 z-scores, 0 outside the brain.
    label
        B x D x H x W classes.
    available
        B x 4 bool.
    keys
        (seed, step, sample number) by sample; equal keys give equal results on the same kind of device.
    """
    pairs = [_augment_one(*item) for item in zip(image, label, available, keys, strict=True)]
    return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])


def _augment_one(image: Tensor, label: Tensor, available: Tensor, key: Key) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng([*key, _STREAM])
    axes = [axis for axis in (-3, -2, -1) if rng.random() < _FLIP]
    image, label = image.flip(axes), label.flip(axes)
    if rng.random() < _AFFINE:
        image, label = spatial.turn_and_scale(image, label, rng)
    mask = (image != 0) & available.to(image.device)[:, None, None, None]
    for probability, change in _INTENSITY:
        if rng.random() < probability:
            image = change(image, mask, rng)
    return image * mask, label


_STREAM = 2  # apart from the streams that choose cases and corners

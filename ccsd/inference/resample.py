"""Resample between a case's own voxel spacing and that of the training."""

import torch
from torch import Tensor
from torch.nn import functional

from ccsd.metrics.regions import Spacing

TOLERANCE = 0.1
"""Spacings that differ by no more than this share are not resampled."""
_INSIDE = 0.5


def needs_resampling(spacing: Spacing, target: Spacing) -> bool:
    """Return whether the spacing differs enough from the training's to matter."""
    return any(abs(own - other) > TOLERANCE * other for own, other in zip(spacing, target, strict=True))


def target_shape(shape: tuple[int, ...], spacing: Spacing, target: Spacing) -> tuple[int, int, int]:
    """Return the number of voxels that cover the same box at the other spacing, at least one along each axis."""
    depth, height, width = (
        max(1, round(n * own / other)) for n, own, other in zip(shape, spacing, target, strict=True)
    )
    return depth, height, width


def resample_image(image: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Resample z-scores (M x D x H x W) linearly; voxels that were mostly outside the brain stay exactly 0.

    The blur of the brain's edge with the background is undone by dividing by the resampled brain mask.
    """
    brain = _linear((image != 0).to(image.dtype), shape)
    values = _linear(image, shape) / brain.clamp_min(_INSIDE)
    return torch.where(brain >= _INSIDE, values, torch.zeros_like(values))


def resample_probabilities(probabilities: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Resample C x D x H x W linearly to the shape of the case's own grid."""
    return _linear(probabilities, shape)


def _linear(volume: Tensor, shape: tuple[int, ...]) -> Tensor:
    # Reducing the resolution without a low-pass filter would alias, as with any volume sampled finer than the model's.
    sigmas = [max(0.0, (old / new - 1) / 2) for old, new in zip(volume.shape[1:], shape, strict=True)]
    for axis, sigma in enumerate(sigmas):
        if sigma > 0:
            volume = _smooth(volume, axis + 1, sigma)
    return functional.interpolate(volume[None], size=tuple(shape), mode="trilinear", align_corners=False)[0]


def _smooth(volume: Tensor, axis: int, sigma: float) -> Tensor:
    """Apply a Gaussian along one axis, with edge values repeated beyond it."""
    radius = max(1, int(3 * sigma + 0.5))
    offsets = torch.arange(-radius, radius + 1, dtype=volume.dtype, device=volume.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    lines = volume.movedim(axis, -1)
    flat = functional.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
    return functional.conv1d(flat, kernel[None, None]).reshape(lines.shape).movedim(-1, axis)

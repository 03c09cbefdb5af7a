"""Random changes of intensity, each for one patch: (image, mask, rng) -> image.

Images are 4 x D x H x W; the mask is true inside the brain of an available modality. Each modality draws its own
strength, and is left alone half of the time, so that modalities vary against one another. Values outside the mask do
not matter: the caller sets them to 0.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_TAPS = 3  # voxels of the blur's kernel to each side


def noise(image: Tensor, mask: Tensor, rng: np.random.Generator) -> Tensor:  # noqa: ARG001 - one signature for all
    """Add Gaussian noise of a standard deviation up to 0.15."""
    generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**62)))
    sigma = _strength(image, rng, 0.0, 0.15, neutral=0.0)
    return image + sigma * torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)


def brightness(image: Tensor, mask: Tensor, rng: np.random.Generator) -> Tensor:  # noqa: ARG001 - one signature for all
    """Multiply by 0.75 to 1.25 and shift by up to 0.2."""
    return image * _strength(image, rng, 0.75, 1.25) + _strength(image, rng, -0.2, 0.2, neutral=0.0)


def contrast(image: Tensor, mask: Tensor, rng: np.random.Generator) -> Tensor:
    """Stretch around the brain's mean by 0.7 to 1.4, within the range of values that was there."""
    low, high = _range(image, mask)
    mean, _ = _moments(image, mask)
    stretched = (image - mean) * _strength(image, rng, 0.7, 1.4) + mean
    return torch.minimum(torch.maximum(stretched, low), high)


def gamma(image: Tensor, mask: Tensor, rng: np.random.Generator) -> Tensor:
    """Bend the range of values by an exponent of 0.7 to 1.5, keeping mean and standard deviation."""
    low, high = _range(image, mask)
    mean, std = _moments(image, mask)
    exponent = _strength(image, rng, 0.7, 1.5)
    width = (high - low).clamp_min(1e-6)
    bent = ((image - low) / width).clamp(0, 1) ** exponent
    bent_mean, bent_std = _moments(bent, mask)
    return torch.where(exponent == 1, image, (bent - bent_mean) / bent_std.clamp_min(1e-6) * std + mean)


def blur(image: Tensor, mask: Tensor, rng: np.random.Generator) -> Tensor:  # noqa: ARG001 - one signature for all
    """Blur with a Gaussian of 0.5 to 1.2 voxels."""
    for row in _chosen(image, rng):
        image = _replaced(image, row, _smoothed(image[row], rng.uniform(0.5, 1.2)))
    return image


def low_resolution(image: Tensor, mask: Tensor, rng: np.random.Generator) -> Tensor:  # noqa: ARG001 - one signature for all
    """Sample down to 0.5 to 0.9 of the resolution, and up again."""
    for row in _chosen(image, rng):
        shape = image.shape[1:]
        coarse = [max(1, round(n * rng.uniform(0.5, 0.9))) for n in shape]
        small = functional.interpolate(image[row][None, None], coarse, mode="nearest-exact")
        large = functional.interpolate(small, list(shape), mode="trilinear", align_corners=False)
        image = _replaced(image, row, large[0, 0])
    return image


def _strength(image: Tensor, rng: np.random.Generator, low: float, high: float, neutral: float = 1.0) -> Tensor:
    """Return one number per modality, broadcastable; half of them `neutral`."""
    values = np.where(rng.random(len(image)) < 0.5, rng.uniform(low, high, len(image)), neutral)  # noqa: PLR2004 - half
    return torch.tensor(values, dtype=image.dtype, device=image.device)[:, None, None, None]


def _chosen(image: Tensor, rng: np.random.Generator) -> list[int]:
    return [int(row) for row in np.flatnonzero(rng.random(len(image)) < 0.5)]  # noqa: PLR2004 - half


def _replaced(image: Tensor, row: int, values: Tensor) -> Tensor:
    changed = image.clone()
    changed[row] = values
    return changed


def _smoothed(volume: Tensor, sigma: float) -> Tensor:
    taps = torch.arange(-_TAPS, _TAPS + 1, dtype=volume.dtype, device=volume.device)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    smooth = volume[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = kernel.numel()
        padding = [0, 0, 0]
        padding[axis] = _TAPS
        smooth = functional.conv3d(smooth, kernel.view(shape), padding=padding)
    return smooth[0, 0]


def _moments(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each modality inside its mask."""
    axes = (1, 2, 3)
    count = mask.sum(axes, keepdim=True).clamp_min(1)
    mean = (image * mask).sum(axes, keepdim=True) / count
    variance = (((image - mean) * mask) ** 2).sum(axes, keepdim=True) / count
    return mean, variance.sqrt()


def _range(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest value of each modality inside its mask; 0 and 0 where that is empty."""
    axes = (1, 2, 3)
    low = image.masked_fill(~mask, float("inf")).amin(axes, keepdim=True)
    high = image.masked_fill(~mask, float("-inf")).amax(axes, keepdim=True)
    return torch.where(low.isfinite(), low, 0), torch.where(high.isfinite(), high, 0)

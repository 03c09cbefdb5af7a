"""Random changes of intensity of a batch of patches: (image, mask, rngs) -> image.

Images are B x M x D x H x W; the mask is true inside the brain of an available modality; each sample draws from its own
generator. Each modality draws its own strength and is unchanged half of the time, so that modalities vary relative to
one another. Values outside the mask do not matter: the caller sets them to 0.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ccsd.data.batch import send

Generators = Sequence[np.random.Generator]
Matrix = npt.NDArray[np.float32]

_HALF = 0.5
_VOXELS = (-3, -2, -1)


def noise(image: Tensor, mask: Tensor, rngs: Generators) -> Tensor:  # noqa: ARG001 - one signature for all
    """Add Gaussian noise of a standard deviation up to 0.15."""
    added = torch.empty_like(image)
    for row, rng in enumerate(rngs):  # with its own generator, a sample's noise is the same in any batch
        added[row].normal_(generator=torch.Generator(image.device).manual_seed(int(rng.integers(2**62))))
    return image + _strength(image, rngs, 0.0, 0.15, neutral=0.0) * added


def brightness(image: Tensor, mask: Tensor, rngs: Generators) -> Tensor:  # noqa: ARG001 - one signature for all
    """Multiply by 0.75 to 1.25 and shift by up to 0.2."""
    return image * _strength(image, rngs, 0.75, 1.25) + _strength(image, rngs, -0.2, 0.2, neutral=0.0)


def contrast(image: Tensor, mask: Tensor, rngs: Generators) -> Tensor:
    """Stretch around the brain's mean by 0.7 to 1.4, within the original range of values."""
    low, high = _range(image, mask)
    mean, _ = _moments(image, mask)
    stretched = (image - mean) * _strength(image, rngs, 0.7, 1.4) + mean
    return torch.minimum(torch.maximum(stretched, low), high)


def gamma(image: Tensor, mask: Tensor, rngs: Generators) -> Tensor:
    """Apply an exponent of 0.7 to 1.5 to the range of values, keeping mean and standard deviation."""
    low, high = _range(image, mask)
    mean, std = _moments(image, mask)
    exponent = _strength(image, rngs, 0.7, 1.5)
    width = (high - low).clamp_min(1e-6)
    bent = ((image - low) / width).clamp(0, 1) ** exponent
    bent_mean, bent_std = _moments(bent, mask)
    return torch.where(exponent == 1, image, (bent - bent_mean) / bent_std.clamp_min(1e-6) * std + mean)


def blur(image: Tensor, mask: Tensor, rngs: Generators) -> Tensor:  # noqa: ARG001 - one signature for all
    """Blur with a Gaussian of 0.5 to 1.2 voxels."""
    return _filtered(image, rngs, lambda rng: [rng.uniform(0.5, 1.2)] * 3, gaussian)


def low_resolution(image: Tensor, mask: Tensor, rngs: Generators) -> Tensor:  # noqa: ARG001 - one signature for all
    """Sample down to 0.5 to 0.9 of the resolution along each axis, and up again."""
    return _filtered(image, rngs, lambda rng: list(rng.uniform(0.5, 0.9, 3)), down_and_up)


def gaussian(voxels: int, sigma: float) -> Matrix:
    """Return the N x N matrix that blurs along an axis; weights outside are redistributed to the voxels inside."""
    offsets = np.arange(voxels)[:, None] - np.arange(voxels)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def down_and_up(voxels: int, share: float) -> Matrix:
    """Return the N x N matrix that keeps the nearest voxels of a coarser grid and interpolates between them."""
    coarse = max(1, round(voxels * share))
    kept = np.floor((np.arange(coarse) + 0.5) * voxels / coarse).astype(int)
    places = np.clip((np.arange(voxels) + 0.5) * coarse / voxels - 0.5, 0, coarse - 1)
    between = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(coarse)))
    matrix = np.zeros((voxels, voxels), np.float32)
    matrix[:, kept] = between
    return matrix


def _filtered(
    image: Tensor,
    rngs: Generators,
    draw: Callable[[np.random.Generator], Sequence[float]],
    matrix: Callable[[int, float], Matrix],
) -> Tensor:
    """Filter half of the modalities along the three axes, all of them at once, each with its own three strengths."""
    rows = [(row, m) for row, rng in enumerate(rngs) for m in np.flatnonzero(rng.random(image.shape[1]) < _HALF)]
    if not rows:
        return image
    strengths = [draw(rngs[row]) for row, _ in rows]
    chosen = tuple(send(torch.tensor(index), image.device) for index in zip(*rows, strict=True))
    volumes = image[chosen]
    for axis in _VOXELS:
        stack = np.stack([matrix(image.shape[axis], by_axis[axis]) for by_axis in strengths])
        volumes = along_axis(volumes, send(torch.from_numpy(stack), image.device), axis)
    return image.index_put(chosen, volumes)


def along_axis(volumes: Tensor, matrices: Tensor, axis: int) -> Tensor:
    """Multiply each of n x D x H x W volumes by its n x N x N matrix along an axis (-3, -2 or -1)."""
    if axis == -1:
        return (volumes.flatten(1, 2) @ matrices.mT).view_as(volumes)
    if axis == -2:  # noqa: PLR2004 - the axis H
        return matrices[:, None] @ volumes
    return (matrices @ volumes.flatten(2)).view_as(volumes)


def _strength(image: Tensor, rngs: Generators, low: float, high: float, neutral: float = 1.0) -> Tensor:
    """Return one number per sample and modality, broadcastable; half of them `neutral`."""
    count = image.shape[1]
    values = [np.where(rng.random(count) < _HALF, rng.uniform(low, high, count), neutral) for rng in rngs]
    return send(torch.from_numpy(np.stack(values).astype(np.float32)), image.device)[..., None, None, None]


def _moments(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each modality inside its mask."""
    count = mask.sum(_VOXELS, keepdim=True).clamp_min(1)
    mean = (image * mask).sum(_VOXELS, keepdim=True) / count
    variance = (((image - mean) * mask) ** 2).sum(_VOXELS, keepdim=True) / count
    return mean, variance.sqrt()


def _range(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest value of each modality inside its mask; 0 and 0 if that is empty."""
    low = image.masked_fill(~mask, float("inf")).amin(_VOXELS, keepdim=True)
    high = image.masked_fill(~mask, float("-inf")).amax(_VOXELS, keepdim=True)
    return torch.where(low.isfinite(), low, 0), torch.where(high.isfinite(), high, 0)

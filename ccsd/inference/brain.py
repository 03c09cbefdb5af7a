"""Find the brain in the input images: nothing is painted outside it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PAINTED = "brain"
"""Where labels may be painted, recorded to distinguish results: earlier versions painted anywhere."""
_AXES = 3


def brain_of(images: "Tensor") -> "Tensor":
    """Return the mask of the brain, D x H x W bool.

    A voxel belongs to the brain if at least one image is not 0 there, or if brain lies on both sides of it along at
    least two of the three axes: ventricles and resection cavities may be 0 in every image, and may contain tumour. Of
    cavities that open to the surface, a thin cap is lost. Where the surface is convex, no voxel outside it is added.

    Parameters
    ----------
    images
        m x D x H x W, z-scores of the sequences that are used; 0 outside the brain.
    """
    shown = (images != 0).any(dim=0)
    d, h, w = (_between(shown, axis) for axis in range(_AXES))
    return shown | (d & h) | (d & w) | (h & w)


def cut(probabilities: "Tensor", brain: "Tensor", threshold: float = 0.5) -> "Tensor":
    """Set region probabilities (R x D x H x W) to 0 outside the brain (D x H x W bool), in place.

    Returns
    -------
    Tensor
        A single number: the share of the voxels above the threshold that were outside; 0 if none is above it.
    """
    painted = (probabilities > threshold).any(dim=0)
    outside = (painted & ~brain).sum() / painted.sum().clamp(min=1)
    probabilities.masked_fill_(~brain, 0)
    return outside


def _between(shown: "Tensor", axis: int) -> "Tensor":
    """Return which voxels lie between the first and the last True voxel of their line along an axis."""
    import torch

    size = shown.shape[axis]
    places = torch.arange(size, dtype=torch.int16, device=shown.device)
    places = places.view([-1 if i == axis else 1 for i in range(_AXES)])
    first = torch.where(shown, places, size).amin(dim=axis, keepdim=True)
    last = torch.where(shown, places, -1).amax(dim=axis, keepdim=True)
    return (places > first) & (places < last)

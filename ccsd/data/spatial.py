"""Rotation and scaling of patches."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from ccsd.data.batch import send

_DEGREES = 20.0
_SCALE = (0.8, 1.25)


def turn_and_scale(image: Tensor, label: Tensor, rngs: Sequence[np.random.Generator]) -> tuple[Tensor, Tensor]:
    """Rotate each patch around its centre by up to 20 degrees about each axis, and scale it by 0.8 to 1.25.

    Parameters
    ----------
    image
        B x M x D x H x W; interpolated linearly, 0 outside.
    label
        B x D x H x W; takes the nearest voxel.
    rngs
        Generators from which each patch draws its angles and its scale.
    """
    grid = sampling_grid(np.stack([_matrix(rng) for rng in rngs]), label.shape[1:], image.device)
    turned = functional.grid_sample(image, grid, mode="bilinear", align_corners=False)
    classes = functional.grid_sample(label[:, None].to(image.dtype), grid, mode="nearest", align_corners=False)
    return turned, classes[:, 0].to(label.dtype)


def sampling_grid(matrices: npt.NDArray[np.float64], shape: Sequence[int], device: torch.device) -> Tensor:
    """Return the B x D x H x W x 3 grid for B x 3 x 3 matrices that act on voxel offsets (x, y, z) from the centre."""
    half = np.array([shape[2], shape[1], shape[0]], np.float64)
    theta = np.zeros((len(matrices), 3, 4), np.float32)
    theta[..., :3] = matrices * half[None, :] / half[:, None]
    return functional.affine_grid(
        send(torch.from_numpy(theta), device), [len(matrices), 1, *shape], align_corners=False
    )


def _matrix(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    angles = rng.uniform(-_DEGREES, _DEGREES, 3)
    scale = np.exp(rng.uniform(*np.log(_SCALE)))
    matrix: npt.NDArray[np.float64] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() / scale
    return matrix

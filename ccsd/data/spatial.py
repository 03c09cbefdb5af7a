"""Rotation and scaling of a patch."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

_DEGREES = 20.0
_SCALE = (0.8, 1.25)


def turn_and_scale(image: Tensor, label: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Turn a patch around its centre by up to 20 degrees about each axis, and scale it by 0.8 to 1.25.

    Parameters
    ----------
    image
        4 x D x H x W; interpolated linearly, 0 from outside.
    label
        D x H x W; takes the nearest voxel.
    """
    angles = rng.uniform(-_DEGREES, _DEGREES, 3)
    scale = np.exp(rng.uniform(*np.log(_SCALE)))
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() / scale
    grid = sampling_grid(matrix, label.shape).to(image.device)
    turned = functional.grid_sample(image[None], grid, mode="bilinear", align_corners=False)[0]
    classes = functional.grid_sample(label[None, None].to(image.dtype), grid, mode="nearest", align_corners=False)
    return turned, classes[0, 0].to(label.dtype)


def sampling_grid(matrix: np.ndarray, shape: Sequence[int]) -> Tensor:
    """Return the 1 x D x H x W x 3 grid for a 3 x 3 matrix that acts on voxel offsets (x, y, z) from the centre."""
    half = np.array([shape[2], shape[1], shape[0]], np.float64)
    theta = np.zeros((1, 3, 4))
    theta[0, :, :3] = matrix * half[None, :] / half[:, None]
    return functional.affine_grid(torch.tensor(theta, dtype=torch.float32), [1, 1, *shape], align_corners=False)

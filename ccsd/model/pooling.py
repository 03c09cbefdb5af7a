"""The maximum of 3 x 3 x 3 voxels at every second voxel.

Torch's kernel for GPUs knows no channels-last order, so it would convert a map to channels first and back.
Shapes: N batch, C channels, D H W space.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ccsd.model.layout import channels_last
from ccsd.triton import by_triton


def max_pool(x: Tensor) -> Tensor:
    """Map N x C x D x H x W to N x C x D/2 x H/2 x W/2, rounded up."""
    if not by_triton(x):
        return functional.max_pool3d(x, 3, 2, padding=1)
    pooled: Tensor = _MaxPool.apply(x)  # type: ignore[no-untyped-call]
    return pooled


class _MaxPool(torch.autograd.Function):
    """Keeps which of the 27 voxels was the maximum, one byte for each result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        from ccsd.model import pool_kernels

        y, taps = pool_kernels.forward(channels_last(x))
        ctx.save_for_backward(taps)
        ctx.space = x.shape[2:]
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        from ccsd.model import pool_kernels

        (taps,) = ctx.saved_tensors
        return pool_kernels.backward(channels_last(grad), taps, ctx.space)

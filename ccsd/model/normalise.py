"""Group normalisation, an addition to it, and the leaky rectifier after it, in one function for GPUs.

It computes in the tensor's own type: autocast would use float32 and pass that on. It computes all three at once:
separately they would read and write a map several times, which costs more than most convolutions. Only what the
gradient needs is kept.

Shapes: N batch, C channels, G groups, D H W space.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ccsd.model.layout import channels_last
from ccsd.triton import by_triton


def activated_norm(
    x: Tensor, added: Tensor | None, groups: int, weight: Tensor, bias: Tensor, eps: float, slope: float
) -> Tensor:
    """Return rectified(normalised x + added), N x C x D x H x W, in the type of `x`; a slope of 1 rectifies nothing."""
    with torch.autocast("cuda", enabled=False):
        added = None if added is None else added.to(x.dtype)
        if torch.compiler.is_compiling():  # the compiler fuses on its own, and cannot use the kernels
            y = functional.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), eps)
            return functional.leaky_relu(y if added is None else added + y, slope)
        activated: Tensor = _ActivatedNorm.apply(x, added, groups, weight, bias, eps, slope)  # type: ignore[no-untyped-call]
        return activated


class _ActivatedNorm(torch.autograd.Function):
    """Uses Triton if it is available, else torch's own operations."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, groups: int, weight: Tensor, bias: Tensor, eps: float, slope: float
    ) -> Tensor:
        ctx.groups, ctx.slope, ctx.by_triton = groups, slope, by_triton(x)
        if ctx.by_triton:
            from ccsd.model import norm_kernels

            x, added = channels_last(x), None if added is None else channels_last(added)
            y, *statistics = norm_kernels.forward(x, added, groups, weight, bias, eps, slope)
        else:
            n, c = x.shape[:2]
            x, own = x.contiguous(), (weight.to(x.dtype), bias.to(x.dtype))
            y, *statistics = torch.native_group_norm(x, *own, n, c, x[0, 0].numel(), groups, eps)
            y = functional.leaky_relu_(y if added is None else y + added, slope)
        kept = y if added is not None or not ctx.by_triton else None
        ctx.save_for_backward(x, kept, weight, *statistics)
        ctx.has_added = added is not None
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, *statistics = ctx.saved_tensors
        if ctx.by_triton:
            from ccsd.model import norm_kernels

            moments, affine = statistics
            grad = channels_last(grad.to(x.dtype))
            dx, d_added, *own = norm_kernels.backward(grad, x, y, weight, moments, affine, ctx.groups, ctx.slope)
        else:
            inner = torch.ops.aten.leaky_relu_backward(grad.contiguous(), y, ctx.slope, True)
            n, c = x.shape[:2]
            shape = (n, c, x[0, 0].numel(), ctx.groups, [True] * 3)
            dx, *own = torch.ops.aten.native_group_norm_backward(inner, x, *statistics, weight.to(x.dtype), *shape)
            d_added = inner if ctx.has_added else None
        d_weight, d_bias = (value.to(weight.dtype) for value in own)
        return dx, d_added, None, d_weight, d_bias, None, None

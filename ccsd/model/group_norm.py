"""Group normalisation on GPUs: in the tensor's own type, and with statistics that are added up by the whole card.

Autocast would compute it in float32 and hand that on, which is half as much memory again. And torch's own kernel adds
up each group of each sample in one block: a handful of blocks for the large maps of a small batch, on cards that run
more than a hundred at once. Compiled code splits such sums by itself, those of the gradient too, which are torch's own
here: a block for each channel of each sample.

Shapes: N batch, C channels, G groups, D H W space.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

BUSY = 132
"""Groups times samples from which on torch's own kernel fills a card: the multiprocessors of an H100."""


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise N x C x D x H x W by the mean and variance of each of the groups of channels, in the type of `x`."""
    with torch.autocast("cuda", enabled=False):
        is_split = len(x) * groups < BUSY and x.dtype != torch.float16  # in which a variance may overflow
        if torch.compiler.is_compiling() or not is_split:
            return functional.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), eps)
        normalised: Tensor = _Split.apply(x, groups, weight, bias, eps)  # type: ignore[no-untyped-call]
        return normalised


class _Split(torch.autograd.Function):
    """The same, from a reduction that torch splits over many blocks; the gradient is torch's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        n, c = x.shape[:2]
        x = x.contiguous()
        variance, mean = torch.var_mean(x.view(n, groups, -1), -1, correction=0)
        ctx.save_for_backward(x, mean, (variance + eps).rsqrt(), weight)
        ctx.groups = groups
        # Normalising by given statistics is what a trained batch normalisation does, here with n * c channels.
        means, variances = (t.float()[..., None].expand(-1, -1, c // groups).flatten() for t in (mean, variance))
        weights, biases = (t.expand(n, -1).flatten() for t in (weight, bias))
        flat = functional.batch_norm(x.view(1, n * c, -1), means, variances, weights, biases, eps=eps)
        return flat.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight = ctx.saved_tensors
        n, c = x.shape[:2]
        found = torch.ops.aten.native_group_norm_backward(
            grad.contiguous(), x, mean, rstd, weight.to(x.dtype), n, c, x[0, 0].numel(), ctx.groups, [True] * 3
        )
        return found[0], None, found[1].to(weight.dtype), found[2].to(weight.dtype), None

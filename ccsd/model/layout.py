"""The layout of maps in a GPU's memory: channels last, and neighbouring voxels side by side as channels.

GPU kernels for 3-D convolutions take as long for 16 channels as for 32, and half as long as for 64; for more they are
as fast as the card. So a narrow convolution takes voxels that are neighbours along W as channels of one
(`ccsd.model.blocks.Conv`), which in channels-last order they are in memory anyway.

Shapes: N samples, C channels, D H W space.
"""

from typing import Any

import torch
from torch import Tensor

WIDE = 64
"""Channels from which on GPUs compute convolutions at full speed."""


def on_gpu(x: Tensor) -> bool:
    """Return whether a tensor is on a GPU, where other ways to the same result are fast."""
    return x.device.type != "cpu"


def channels_last(x: Tensor) -> Tensor:
    """Return a map in the memory order of the fast GPU kernels."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def for_autocast(x: Tensor, order: torch.memory_format = torch.preserve_format) -> Tensor:
    """Return a tensor in the type in which GPUs' autocast would compute a convolution, and in this order in memory."""
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    converted: Tensor = _Converted.apply(x, dtype, order)  # type: ignore[no-untyped-call]
    return converted


class _Converted(torch.autograd.Function):
    """Converts type and order at once, also those of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, order: torch.memory_format) -> Tensor:
        ctx.dtype = x.dtype
        return x.to(dtype, memory_format=order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.to(ctx.dtype, memory_format=torch.contiguous_format), None, None


def rows_of(x: Tensor) -> Tensor:
    """Return a map as N x D x H x W x C, dense."""
    return channels_last(x).movedim(1, -1)


def folded(x: Tensor, count: int) -> Tensor:
    """Return N x C x D x H x W as N x count*C x D x H x W/count: the channels of `count` neighbours along W."""
    return rows_of(x).reshape(*x.shape[:1], *x.shape[2:4], -1, count * x.shape[1]).movedim(-1, 1)


def unfolded(x: Tensor, count: int) -> Tensor:
    """Undo `folded`."""
    return rows_of(x).reshape(*x.shape[:1], *x.shape[2:4], -1, x.shape[1] // count).movedim(-1, 1)


def spread(size: int, stride: int, padding: int, inputs: int, outputs: int) -> Tensor | None:
    """Return how a kernel along W becomes that of folded maps: size x o x blocks x i of zeros and ones.

    The maps have `inputs` and `outputs` channels. Entry [t, p, b, q] is 1 if output p of a block of o takes tap t from
    input q of the b-th block of i = o * stride, of which the middle one is the output's own. None if the
    channels are too many to fold.
    """
    count = 1
    while 2 * count * max(outputs, stride * inputs) <= WIDE:
        count *= 2
    if count == 1:
        return None
    width = count * stride
    starts = [p * stride - padding for p in range(count)]
    reach = max(-(starts[0] // width), (starts[-1] + size - 1) // width)
    # Also where the network is first built without memory.
    found = torch.zeros(size, count, (2 * reach + 1) * width, device="cpu")
    for p, start in enumerate(starts):
        for tap in range(size):
            found[tap, p, start + tap + reach * width] = 1
    return torch.unflatten(found, 2, (-1, width))


def beside(x: Tensor, count: int) -> Tensor:
    """Put the channels of every `count` samples side by side: N*count x C x ... to N x count*C x ...."""
    if count == 1:
        return x
    rows: Tensor = _Swap.apply(rows_of(x).reshape(len(x) // count, count, -1, x.shape[1]))  # type: ignore[no-untyped-call]
    return rows.reshape(-1, *x.shape[2:], count * x.shape[1]).movedim(-1, 1)


class _Swap(torch.autograd.Function):
    """Swap the two middle axes of four, and those of the gradient."""

    @staticmethod
    def forward(_: Any, rows: Tensor) -> Tensor:
        return swap_middle(rows)

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        return swap_middle(grad.contiguous())


def swap_middle(rows: Tensor) -> Tensor:
    """Return dense n x b x a x c of dense n x a x b x c, moving 16 bytes at a time if that divides a row."""
    if rows.shape[-1] * rows.element_size() % 16 or torch.compiler.is_compiling():
        return rows.transpose(1, 2).contiguous()
    return rows.view(torch.complex128).transpose(1, 2).contiguous().view(rows.dtype)

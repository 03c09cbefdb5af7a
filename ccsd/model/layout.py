"""The layout of maps in a GPU's memory: channels last, and those of neighbouring samples side by side.

GPU kernels for 3-D convolutions take as long for 16 channels as for 32, and half as long as for 64; for more they are
as fast as the card. So several narrow networks are computed as one (`ccsd.model.blocks.Conv`).

Shapes: N samples, C channels, D H W space.
"""

from typing import Any

import torch
from torch import Tensor

JOINED_CHANNELS = 64
"""Maximum channels of narrow networks that GPUs compute as one."""


def on_gpu(x: Tensor) -> bool:
    """Return whether a tensor is on a GPU, where other ways to the same result are fast."""
    return x.device.type != "cpu"


def neighbours(count: int, channels: int) -> int:
    """Return how many of `count` networks with so many channels GPUs compute as one: a power of two that divides it."""
    together = 1
    while count % (2 * together) == 0 and 2 * together * channels <= JOINED_CHANNELS:
        together *= 2
    return together


def channels_last(x: Tensor) -> Tensor:
    """Return a map in the memory order of the fast GPU kernels."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def beside(x: Tensor, count: int) -> Tensor:
    """Put the channels of every `count` samples side by side: N*count x C x ... to N x count*C x ...."""
    if count == 1:
        return x
    if x.shape[1] == 1 or not x.is_contiguous(memory_format=torch.channels_last_3d):
        return x.reshape(-1, count * x.shape[1], *x.shape[2:])
    rows: Tensor = _Swap.apply(x.movedim(1, -1).reshape(len(x) // count, count, -1, x.shape[1]))  # type: ignore[no-untyped-call]
    return rows.reshape(-1, *x.shape[2:], count * x.shape[1]).movedim(-1, 1)


def apart(x: Tensor, count: int) -> Tensor:
    """Undo `beside`."""
    if count == 1:
        return x
    if not x.is_contiguous(memory_format=torch.channels_last_3d):
        return x.reshape(len(x) * count, -1, *x.shape[2:])
    rows: Tensor = _Swap.apply(x.movedim(1, -1).reshape(len(x), -1, count, x.shape[1] // count))  # type: ignore[no-untyped-call]
    return rows.reshape(-1, *x.shape[2:], rows.shape[-1]).movedim(-1, 1)


class _Swap(torch.autograd.Function):
    """`swap_middle` and its gradient."""

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

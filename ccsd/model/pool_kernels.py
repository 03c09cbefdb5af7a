"""Triton kernels for the maximum of 3 x 3 x 3 voxels at every second voxel, for maps in channels-last order on GPUs.

The first of several equal voxels counts, as in torch. The gradient of a voxel is collected from the up to eight cubes
that it lies in, so the same input always gives the same bits.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024
"""Values that a block holds at once."""


@triton.jit
def _place(BLOCK_V: tl.constexpr, BLOCK_C: tl.constexpr, channels, depth, height, width, count):
    """Return channels, the place d, h, w and the sample n of a block of the `count` voxels of all samples."""
    v = tl.program_id(0).to(tl.int64) * BLOCK_V + tl.arange(0, BLOCK_V)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = (v < count)[:, None] & (c < channels)[None, :]
    w, h, d = v % width, v // width % height, v // (width * height) % depth
    return c, v, w, h, d, v // (width * height * depth), there


@triton.jit
def _max_pool(x, y, taps, count, depth, height, width, channels, BLOCK_V: tl.constexpr, BLOCK_C: tl.constexpr):
    """Write the maxima, and which of the 27 voxels each is."""
    out_d, out_h, out_w = (depth + 1) // 2, (height + 1) // 2, (width + 1) // 2
    c, v, ow, oh, od, n, there = _place(BLOCK_V, BLOCK_C, channels, out_d, out_h, out_w, count)
    best = tl.full([BLOCK_V, BLOCK_C], float("-inf"), tl.float32)
    which = tl.full([BLOCK_V, BLOCK_C], 13, tl.int32)
    for tap in tl.static_range(27):
        d, h, w = 2 * od - 1 + tap // 9, 2 * oh - 1 + tap // 3 % 3, 2 * ow - 1 + tap % 3
        inside = (d >= 0) & (d < depth) & (h >= 0) & (h < height) & (w >= 0) & (w < width)
        at = (((n * depth + d) * height + h) * width + w)[:, None] * channels + c[None, :]
        value = tl.load(x + at, there & inside[:, None], other=float("-inf")).to(tl.float32)
        better = (value > best) | (value != value)  # noqa: PLR0124 - what is not a number is passed on
        best, which = tl.where(better, value, best), tl.where(better, tap, which)
    to = v[:, None] * channels + c[None, :]
    tl.store(y + to, best.to(y.dtype.element_ty), there)
    tl.store(taps + to, which.to(tl.int8), there)


@triton.jit
def _max_pool_gradient(
    dy, taps, dx, count, depth, height, width, channels, BLOCK_V: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Write the sum of what follows by each voxel."""
    out_d, out_h, out_w = (depth + 1) // 2, (height + 1) // 2, (width + 1) // 2
    c, v, w, h, d, n, there = _place(BLOCK_V, BLOCK_C, channels, depth, height, width, count)
    total = tl.zeros([BLOCK_V, BLOCK_C], tl.float32)
    for cube in tl.static_range(8):
        e, f, g = cube // 4, cube // 2 % 2, cube % 2
        od, oh, ow = (d + e) // 2, (h + f) // 2, (w + g) // 2  # an even voxel lies in one cube of each axis
        inside = (od < out_d) & (oh < out_h) & (ow < out_w)
        inside = inside & ((e <= d % 2) & (f <= h % 2) & (g <= w % 2))
        tap = (d - 2 * od + 1) * 9 + (h - 2 * oh + 1) * 3 + (w - 2 * ow + 1)
        at = (((n * out_d + od) * out_h + oh) * out_w + ow)[:, None] * channels + c[None, :]
        chosen = tl.load(taps + at, there & inside[:, None], other=-1).to(tl.int64) == tap[:, None]
        total += tl.load(dy + at, chosen, other=0).to(tl.float32)
    tl.store(dx + v[:, None] * channels + c[None, :], total.to(dx.dtype.element_ty), there)


def forward(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return N x C x D/2 x H/2 x W/2 maxima of a dense N x C x D x H x W map in channels-last order, and their taps."""
    n, c, *space = x.shape
    y = torch.empty(n, *((side + 1) // 2 for side in space), c, dtype=x.dtype, device=x.device).movedim(-1, 1)
    taps = torch.empty_like(y, dtype=torch.int8)
    grid, blocks = _plan(y)
    _max_pool[grid](x, y, taps, y.numel() // c, *space, c, **blocks)
    return y, taps


def backward(dy: Tensor, taps: Tensor, space: tuple[int, int, int]) -> Tensor:
    """Return the gradient of a map of this space; the gradient of the maxima is in channels-last order."""
    n, c = dy.shape[:2]
    dx = torch.empty(n, *space, c, dtype=dy.dtype, device=dy.device).movedim(-1, 1)
    grid, blocks = _plan(dx)
    _max_pool_gradient[grid](dy, taps, dx, dx.numel() // c, *space, c, **blocks)
    return dx


def _plan(out: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    channels = out.shape[1]
    block_c = min(64, triton.next_power_of_2(channels))
    block_v = TILE // block_c
    grid = triton.cdiv(out.numel() // channels, block_v), triton.cdiv(channels, block_c)
    return grid, {"BLOCK_V": block_v, "BLOCK_C": block_c}

"""Triton kernels for group normalisation with a leaky rectifier, for maps in channels-last order on GPUs.

Torch's own kernels read a map several times more often than needed, and convert it to channels first and back. These
kernels read it once for the sums, and once more together with what is added to it, to write the result. Two such passes
give the gradient. Many blocks add up the sums in a fixed order, so that the same input always gives the same bits.

A map is N samples of V voxels of C channels, in this order in memory. The channels form `groups` groups of G.
Sums are float32 within a block, of which there are `splits` for each sample, and float64 over the blocks.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096
"""Values that a block holds at once."""
BLOCKS = 1024
"""Target number of blocks for the sums: several for each of an H100's multiprocessors."""


@triton.jit
def _tile(n, v0, voxels, channels, BLOCK_V: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return offsets within a sample, which of them exist, the channels, and the offset of the sample."""
    v = v0 + tl.arange(0, BLOCK_V)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = (v[:, None] < voxels) & (c[None, :] < channels)
    return v[:, None] * channels + c[None, :], there, c, n.to(tl.int64) * voxels * channels


@triton.jit
def _sums(x, out, voxels, channels, share, BLOCK_V: tl.constexpr, BLOCK_C: tl.constexpr):
    """Write the sums of x and of its squares over a share of a sample's voxels: N x splits x 2 x C."""
    n, split = tl.program_id(0), tl.program_id(1)
    first = tl.zeros([BLOCK_V, BLOCK_C], tl.float32)
    second = tl.zeros([BLOCK_V, BLOCK_C], tl.float32)
    for v0 in range(split * share, split * share + share, BLOCK_V):
        where, there, _, base = _tile(n, v0, voxels, channels, BLOCK_V, BLOCK_C)
        value = tl.load(x + base + where, there, other=0).to(tl.float32)
        first += value
        second += value * value
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    to = out + (n * tl.num_programs(1) + split) * 2 * channels + c
    tl.store(to, tl.sum(first, 0), c < channels)
    tl.store(to + channels, tl.sum(second, 0), c < channels)


@triton.jit
def _totals(sums, splits, channels, size, BLOCK_S: tl.constexpr, BLOCK_G: tl.constexpr):
    """Return both sums of each channel of a group in float64, the channels' numbers, and which of them exist."""
    n, group = tl.program_id(0), tl.program_id(1)
    i = tl.arange(0, BLOCK_G)
    c, there = group * size + i, i < size
    first = tl.zeros([BLOCK_G], tl.float64)
    second = tl.zeros([BLOCK_G], tl.float64)
    for s0 in range(0, splits, BLOCK_S):
        s = s0 + tl.arange(0, BLOCK_S)
        mask = (s[:, None] < splits) & there[None, :]
        where = (n * splits + s[:, None]) * 2 * channels + c[None, :]
        first += tl.sum(tl.load(sums + where, mask, other=0).to(tl.float64), 0)
        second += tl.sum(tl.load(sums + where + channels, mask, other=0).to(tl.float64), 0)
    return first, second, c, there


@triton.jit
def _statistics(
    sums,
    weight,
    bias,
    moments,
    affine,
    splits,
    voxels,
    channels,
    size,
    eps,
    BLOCK_S: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """Write mean and 1 / standard deviation of each group, N x groups x 2, and scale and shift, N x 2 x C."""
    first, second, c, there = _totals(sums, splits, channels, size, BLOCK_S, BLOCK_G)
    count = voxels.to(tl.float64) * size
    mean = tl.sum(first, 0) / count
    variance = tl.maximum(tl.sum(second, 0) / count - mean * mean, 0.0)
    mean, rstd = mean.to(tl.float32), (1 / tl.sqrt(variance + eps)).to(tl.float32)
    n, group = tl.program_id(0), tl.program_id(1)
    to = moments + (n * tl.num_programs(1) + group) * 2
    tl.store(to, mean)
    tl.store(to + 1, rstd)
    scale = tl.load(weight + c, there, other=0).to(tl.float32) * rstd
    tl.store(affine + n * 2 * channels + c, scale, there)
    tl.store(
        affine + (n * 2 + 1) * channels + c,
        tl.load(bias + c, there, other=0).to(tl.float32) - mean * scale,
        there,
    )


@triton.jit
def _apply(
    x, added, affine, y, voxels, channels, slope, HAS_ADDED: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Write y = rectified(scale x + shift + added)."""
    n = tl.program_id(0)
    where, there, c, base = _tile(n, tl.program_id(1) * BLOCK_V, voxels, channels, BLOCK_V, BLOCK_C)
    scale = tl.load(affine + n * 2 * channels + c, c < channels, other=0)[None, :]
    shift = tl.load(affine + (n * 2 + 1) * channels + c, c < channels, other=0)[None, :]
    value = tl.load(x + base + where, there, other=0).to(tl.float32) * scale + shift
    if HAS_ADDED:
        value += tl.load(added + base + where, there, other=0).to(tl.float32)
    value = tl.where(value > 0, value, value * slope)
    tl.store(y + base + where, value.to(y.dtype.element_ty), there)


@triton.jit
def _gradient_sums(
    x,
    y,
    dy,
    affine,
    inner,
    out,
    voxels,
    channels,
    share,
    slope,
    HAS_ADDED: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Write the sums of the gradient g before the rectifier and of g x, N x splits x 2 x C, and g if needed."""
    n, split = tl.program_id(0), tl.program_id(1)
    first = tl.zeros([BLOCK_V, BLOCK_C], tl.float32)
    second = tl.zeros([BLOCK_V, BLOCK_C], tl.float32)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    scale = tl.load(affine + n * 2 * channels + c, c < channels, other=0)[None, :]
    shift = tl.load(affine + (n * 2 + 1) * channels + c, c < channels, other=0)[None, :]
    for v0 in range(split * share, split * share + share, BLOCK_V):
        where, there, _, base = _tile(n, v0, voxels, channels, BLOCK_V, BLOCK_C)
        value = tl.load(x + base + where, there, other=0).to(tl.float32)
        gradient = tl.load(dy + base + where, there, other=0).to(tl.float32)
        before = value * scale + shift
        if HAS_ADDED:  # y has the sign of what was rectified
            before = tl.load(y + base + where, there, other=0).to(tl.float32)
        gradient = tl.where(before > 0, gradient, gradient * slope)
        if HAS_ADDED:
            tl.store(inner + base + where, gradient.to(inner.dtype.element_ty), there)
        first += gradient
        second += gradient * value
    to = out + (n * tl.num_programs(1) + split) * 2 * channels + c
    tl.store(to, tl.sum(first, 0), c < channels)
    tl.store(to + channels, tl.sum(second, 0), c < channels)


@triton.jit
def _gradient_statistics(
    sums,
    weight,
    moments,
    factors,
    parameters,
    splits,
    voxels,
    channels,
    size,
    BLOCK_S: tl.constexpr,
    BLOCK_G: tl.constexpr,
):
    """Write the factors of dx = a g + b x + d, N x 3 x C, and each sample's gradients of weight and bias, N x 2 x C."""
    first, second, c, there = _totals(sums, splits, channels, size, BLOCK_S, BLOCK_G)
    n, group = tl.program_id(0), tl.program_id(1)
    at = moments + (n * tl.num_programs(1) + group) * 2
    mean, rstd = tl.load(at).to(tl.float64), tl.load(at + 1).to(tl.float64)
    gamma = tl.load(weight + c, there, other=0).to(tl.float64)
    normalised = rstd * (second - mean * first)  # sum of g times the normalised x
    count = voxels.to(tl.float64) * size
    plain, scaled = tl.sum(gamma * first, 0) / count, tl.sum(gamma * normalised, 0) / count
    b = -rstd * rstd * scaled
    to = factors + n * 3 * channels + c
    tl.store(to, (gamma * rstd).to(tl.float32), there)
    tl.store(to + channels, (b + 0 * gamma).to(tl.float32), there)
    tl.store(to + 2 * channels, (-rstd * plain - b * mean + 0 * gamma).to(tl.float32), there)
    to = parameters + n * 2 * channels + c
    tl.store(to, normalised.to(tl.float32), there)
    tl.store(to + channels, first.to(tl.float32), there)


@triton.jit
def _gradient(
    x,
    gradient,
    affine,
    factors,
    dx,
    voxels,
    channels,
    slope,
    HAS_ADDED: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Write dx = a g + b x + d; g is given, or derived from the gradient of y."""
    n = tl.program_id(0)
    where, there, c, base = _tile(n, tl.program_id(1) * BLOCK_V, voxels, channels, BLOCK_V, BLOCK_C)
    value = tl.load(x + base + where, there, other=0).to(tl.float32)
    g = tl.load(gradient + base + where, there, other=0).to(tl.float32)
    known = c < channels
    if not HAS_ADDED:
        scale = tl.load(affine + n * 2 * channels + c, known, other=0)[None, :]
        shift = tl.load(affine + (n * 2 + 1) * channels + c, known, other=0)[None, :]
        g = tl.where(value * scale + shift > 0, g, g * slope)
    at = factors + n * 3 * channels + c
    a, b, d = (
        tl.load(at, known, other=0)[None, :],
        tl.load(at + channels, known, other=0)[None, :],
        tl.load(at + 2 * channels, known, other=0)[None, :],
    )
    tl.store(dx + base + where, (a * g + b * value + d).to(dx.dtype.element_ty), there)


class _Plan:
    """How the kernels divide a map."""

    def __init__(self, x: Tensor, groups: int) -> None:
        self.samples, self.channels = x.shape[:2]
        self.voxels, self.groups = x[0, 0].numel(), groups
        self.size = self.channels // groups
        block_c = min(64, triton.next_power_of_2(self.channels))
        block_v = TILE // block_c
        self.blocks = {"BLOCK_V": block_v, "BLOCK_C": block_c}
        tiles, columns = triton.cdiv(self.voxels, block_v), triton.cdiv(self.channels, block_c)
        splits = max(1, min(tiles, BLOCKS // (self.samples * columns)))
        self.share = triton.cdiv(tiles, splits) * block_v
        self.splits = triton.cdiv(self.voxels, self.share)
        self.all_tiles = (self.samples, tiles, columns)
        self.shares = (self.samples, self.splits, columns)
        self.of_groups = (self.samples, groups)
        self.small = {
            "BLOCK_S": min(64, triton.next_power_of_2(self.splits)),
            "BLOCK_G": triton.next_power_of_2(self.size),
        }

    def new(self, x: Tensor, *shape: int) -> Tensor:
        """Return memory for float32 numbers."""
        return torch.empty(shape, dtype=torch.float32, device=x.device)


def forward(
    x: Tensor, added: Tensor | None, groups: int, weight: Tensor, bias: Tensor, eps: float, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rectified sum of the normalised x and what is added, and the statistics for the gradient.

    `x` and `added` are N x C x D x H x W, dense in channels-last order.
    """
    plan: Any = _Plan(x, groups)
    n, c = plan.samples, plan.channels
    sums, moments, affine = plan.new(x, n, plan.splits, 2, c), plan.new(x, n, groups, 2), plan.new(x, n, 2, c)
    y = torch.empty_like(x)
    _sums[plan.shares](x, sums, plan.voxels, c, plan.share, **plan.blocks)
    _statistics[plan.of_groups](
        sums, weight, bias, moments, affine, plan.splits, plan.voxels, c, plan.size, eps, **plan.small
    )
    has = added is not None
    _apply[plan.all_tiles](x, added if has else x, affine, y, plan.voxels, c, slope, HAS_ADDED=has, **plan.blocks)
    return y, moments, affine


def backward(
    dy: Tensor, x: Tensor, y: Tensor | None, weight: Tensor, moments: Tensor, affine: Tensor, groups: int, slope: float
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Return the gradients of x, of what was added (`y` is given if something was), of weight and of bias."""
    plan: Any = _Plan(x, groups)
    n, c = plan.samples, plan.channels
    has = y is not None
    inner, dx = torch.empty_like(x) if has else dy, torch.empty_like(x)
    sums, factors, parameters = (plan.new(x, n, plan.splits, 2, c), plan.new(x, n, 3, c), plan.new(x, n, 2, c))
    _gradient_sums[plan.shares](
        x, y if has else x, dy, affine, inner, sums, plan.voxels, c, plan.share, slope, HAS_ADDED=has, **plan.blocks
    )
    _gradient_statistics[plan.of_groups](
        sums, weight, moments, factors, parameters, plan.splits, plan.voxels, c, plan.size, **plan.small
    )
    _gradient[plan.all_tiles](x, inner, affine, factors, dx, plan.voxels, c, slope, HAS_ADDED=has, **plan.blocks)
    d_weight, d_bias = parameters.sum(0)
    return dx, inner if has else None, d_weight, d_bias

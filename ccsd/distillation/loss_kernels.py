"""Triton kernels for the sums over voxels in the losses, each in one pass over the logits on GPUs.

Torch's own operations would create a float32 map for each intermediate result. A row is one region of one sample's
logits: V voxels that are contiguous in memory. Sums are float32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Voxels that a block reads at once."""
BLOCKS = 2048
"""Target number of blocks: several for each of an H100's multiprocessors."""


@triton.jit
def _row(samples, regions, s0, s1, s2):
    """Return the offset of this program's row; rows are numbered by set, sample and region."""
    row = tl.program_id(0)
    k, b, r = row // (samples * regions), row // regions % samples, row % regions
    return k.to(tl.int64) * s0 + b * s1 + r * s2


@triton.jit
def _overlap(
    logits, target, out, voxels, share, samples, regions, z0, z1, z2, t0, t1, t2, BLOCK: tl.constexpr
):  # fmt: skip
    """Write the sums of p, of p t and of the cross-entropy over a share of a row: rows x splits x 3."""
    z_row = logits + _row(samples, regions, z0, z1, z2)
    t_row = target + _row(samples, regions, t0, t1, t2)
    first = tl.zeros([BLOCK], tl.float32)
    second = tl.zeros([BLOCK], tl.float32)
    third = tl.zeros([BLOCK], tl.float32)
    start = tl.program_id(1) * share
    for v0 in range(start, start + share, BLOCK):
        v = v0 + tl.arange(0, BLOCK)
        there = v < voxels
        z = tl.load(z_row + v, there, other=0).to(tl.float32)
        t = tl.load(t_row + v, there, other=0).to(tl.float32)
        small = tl.exp(-tl.abs(z))
        p = tl.where(z > 0, 1.0, small) / (1 + small)
        entropy = tl.maximum(z, 0.0) - z * t + tl.log(1 + small)
        first += tl.where(there, p, 0.0)
        second += p * t
        third += tl.where(there, entropy, 0.0)
    to = out + (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * 3
    tl.store(to, tl.sum(first, 0))
    tl.store(to + 1, tl.sum(second, 0))
    tl.store(to + 2, tl.sum(third, 0))


@triton.jit
def _overlap_gradient(
    logits, target, factors, dz, voxels, samples, regions, z0, z1, z2, t0, t1, t2, BLOCK: tl.constexpr
):  # fmt: skip
    """Write p (1 - p) (a + b t) + c (p - t) for the factors a, b, c of a row; the result is dense."""
    row, v = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = v < voxels
    z = tl.load(logits + _row(samples, regions, z0, z1, z2) + v, there, other=0).to(tl.float32)
    t = tl.load(target + _row(samples, regions, t0, t1, t2) + v, there, other=0).to(tl.float32)
    small = tl.exp(-tl.abs(z))
    p = tl.where(z > 0, 1.0, small) / (1 + small)
    a, b, c = tl.load(factors + row * 3), tl.load(factors + row * 3 + 1), tl.load(factors + row * 3 + 2)
    value = small / ((1 + small) * (1 + small)) * (a + b * t) + c * (p - t)
    tl.store(dz + row.to(tl.int64) * voxels + v, value.to(dz.dtype.element_ty), there)


@triton.jit
def _log_sigmoid(x):
    return tl.minimum(x, 0.0) - tl.log(1 + tl.exp(-tl.abs(x)))


@triton.jit
def _divergence(
    teacher, student, out, voxels, share, samples, regions, t0, t1, t2, s0, s1, s2, cold, BLOCK: tl.constexpr
):  # fmt: skip
    """Write the sums of the Bernoulli divergence of logits times `cold` over a share of a row: rows x splits."""
    t_row = teacher + _row(samples, regions, t0, t1, t2)
    s_row = student + _row(samples, regions, s0, s1, s2)
    total = tl.zeros([BLOCK], tl.float32)
    start = tl.program_id(1) * share
    for v0 in range(start, start + share, BLOCK):
        v = v0 + tl.arange(0, BLOCK)
        there = v < voxels
        t = tl.load(t_row + v, there, other=0).to(tl.float32) * cold
        s = tl.load(s_row + v, there, other=0).to(tl.float32) * cold
        p = tl.exp(_log_sigmoid(t))
        inside = p * (_log_sigmoid(t) - _log_sigmoid(s))
        total += inside + (1 - p) * (_log_sigmoid(-t) - _log_sigmoid(-s))
    tl.store(out + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), tl.sum(total, 0))


@triton.jit
def _divergence_gradient(
    teacher, student, factors, ds, voxels, samples, regions, t0, t1, t2, s0, s1, s2, cold, BLOCK: tl.constexpr
):  # fmt: skip
    """Write the factor of a row times the difference of the softened probabilities; the result is dense."""
    row, v = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = v < voxels
    t = tl.load(teacher + _row(samples, regions, t0, t1, t2) + v, there, other=0).to(tl.float32) * cold
    s = tl.load(student + _row(samples, regions, s0, s1, s2) + v, there, other=0).to(tl.float32) * cold
    value = tl.load(factors + row) * (tl.exp(_log_sigmoid(s)) - tl.exp(_log_sigmoid(t)))
    tl.store(ds + row.to(tl.int64) * voxels + v, value.to(ds.dtype.element_ty), there)


def _dense(x: Tensor, shape: torch.Size) -> tuple[Tensor, tuple[int, ...]]:
    """Return K x B x R x V values whose voxels are contiguous, and the strides of the other axes."""
    x = x.expand(shape)[(None,) * (6 - len(shape))].flatten(3)
    x = x if x.stride(-1) == 1 else x.contiguous()
    return x, x.stride()[:3]


def _grids(rows: int, voxels: int) -> tuple[tuple[int, int], int, tuple[int, int]]:
    """Return the grid of sums, the voxels of each of its blocks, and the grid of maps."""
    tiles = triton.cdiv(voxels, BLOCK)
    splits = max(1, min(tiles, BLOCKS // rows))
    share = triton.cdiv(tiles, splits) * BLOCK
    return (rows, triton.cdiv(voxels, share)), share, (rows, tiles)


class Overlap(torch.autograd.Function):
    """Sums over the voxels of ... x R x D x H x W logits with targets: of p, of p t and of the cross-entropy."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        z, z_strides = _dense(logits, logits.shape)
        t, t_strides = _dense(target, logits.shape)
        k, b, r, voxels = z.shape
        grid, share, _ = _grids(k * b * r, voxels)
        out = torch.empty(*grid, 3, dtype=torch.float32, device=z.device)
        _overlap[grid](z, t, out, voxels, share, b, r, *z_strides, *t_strides, BLOCK=BLOCK)
        ctx.save_for_backward(logits, target)
        return out.sum(1).view(*logits.shape[:-3], 3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, target = ctx.saved_tensors
        z, z_strides = _dense(logits, logits.shape)
        t, t_strides = _dense(target, logits.shape)
        k, b, r, voxels = z.shape
        dz = torch.empty(logits.shape, dtype=logits.dtype, device=z.device)
        *_, grid = _grids(k * b * r, voxels)
        factors = grad.float().contiguous()
        _overlap_gradient[grid](z, t, factors, dz, voxels, b, r, *z_strides, *t_strides, BLOCK=BLOCK)
        return dz, None


class Divergence(torch.autograd.Function):
    """Sum over the voxels of the Bernoulli divergence of ... x R x D x H x W logits, softened by a temperature."""

    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
        t, t_strides = _dense(teacher, student.shape)
        s, s_strides = _dense(student, student.shape)
        k, b, r, voxels = s.shape
        grid, share, _ = _grids(k * b * r, voxels)
        out = torch.empty(grid, dtype=torch.float32, device=s.device)
        _divergence[grid](t, s, out, voxels, share, b, r, *t_strides, *s_strides, 1 / temperature, BLOCK=BLOCK)
        ctx.save_for_backward(teacher, student)
        ctx.temperature = temperature
        return out.sum(1).view(student.shape[:-3])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        teacher, student = ctx.saved_tensors
        t, t_strides = _dense(teacher, student.shape)
        s, s_strides = _dense(student, student.shape)
        k, b, r, voxels = s.shape
        ds = torch.empty(student.shape, dtype=student.dtype, device=s.device)
        *_, grid = _grids(k * b * r, voxels)
        factors, cold = (grad.float() / ctx.temperature).contiguous(), 1 / ctx.temperature
        _divergence_gradient[grid](t, s, factors, ds, voxels, b, r, *t_strides, *s_strides, cold, BLOCK=BLOCK)
        return None, ds, None

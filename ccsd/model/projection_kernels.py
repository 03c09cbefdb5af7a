"""Triton kernels that project the features of all modalities for several subsets, for maps with few channels on GPUs.

Libraries would read the features once for each subset, or mix the channels of the subsets.

Shapes: B samples, K subsets, V voxels, I channels of all features, O channels of the result.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCKS = 512
"""Target number of blocks for the gradient of the matrices."""
SMALL = 64
"""Channels up to which blocks may take more voxels, and read ahead: multiprocessors hold 99 KiB and more."""


@triton.jit
def _features(features, b, v, voxels, inputs, BLOCK_I: tl.constexpr):
    """Return a tile of the features, voxels x I."""
    i = tl.arange(0, BLOCK_I)
    at = (b.to(tl.int64) * voxels + v)[:, None] * inputs + i[None, :]
    return tl.load(features + at, (v[:, None] < voxels) & (i[None, :] < inputs), other=0)


@triton.jit
def _matrix(matrix, row, inputs, outputs, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr):
    """Return one of the matrices, I x O."""
    i, o = tl.arange(0, BLOCK_I)[:, None], tl.arange(0, BLOCK_O)[None, :]
    return tl.load(matrix + (row * inputs + i) * outputs + o, (i < inputs) & (o < outputs), other=0)


@triton.jit
def _places(row, v, voxels, outputs, BLOCK_O: tl.constexpr):
    """Return the offsets of a tile of the rows, voxels x O, and which of them exist."""
    o = tl.arange(0, BLOCK_O)
    at = (row.to(tl.int64) * voxels + v)[:, None] * outputs + o[None, :]
    return at, (v[:, None] < voxels) & (o[None, :] < outputs)


@triton.jit
def _project(
    rows, features, matrix, y, sets, voxels, inputs, outputs,
    BLOCK_V: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """Write rows + features matrix."""
    b = tl.program_id(1)
    v = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    tile = _features(features, b, v, voxels, inputs, BLOCK_I)
    for k in range(sets):
        weights = _matrix(matrix, b * sets + k, inputs, outputs, BLOCK_I, BLOCK_O).to(tile.dtype)
        at, there = _places(b * sets + k, v, voxels, outputs, BLOCK_O)
        total = tl.load(rows + at, there, other=0).to(tl.float32) + tl.dot(tile, weights, input_precision="ieee")
        tl.store(y + at, total.to(y.dtype.element_ty), there)


@triton.jit
def _project_gradient_features(
    dy, matrix, dx, sets, voxels, inputs, outputs,
    BLOCK_V: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """Write the sum over the subsets of dy matrix^T."""
    b = tl.program_id(1)
    v = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    total = tl.zeros([BLOCK_V, BLOCK_I], tl.float32)
    for k in range(sets):
        at, there = _places(b * sets + k, v, voxels, outputs, BLOCK_O)
        tile = tl.load(dy + at, there, other=0)
        weights = _matrix(matrix, b * sets + k, inputs, outputs, BLOCK_I, BLOCK_O).to(tile.dtype)
        total += tl.dot(tile, tl.trans(weights), input_precision="ieee")
    i = tl.arange(0, BLOCK_I)
    at = (b.to(tl.int64) * voxels + v)[:, None] * inputs + i[None, :]
    tl.store(dx + at, total.to(dx.dtype.element_ty), (v[:, None] < voxels) & (i[None, :] < inputs))


@triton.jit
def _project_gradient_matrix(
    dy, features, parts, sets, voxels, inputs, outputs, share,
    BLOCK_V: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """Write features^T dy over a share of the voxels: splits x B x K x I x O."""
    row, split = tl.program_id(0), tl.program_id(1)
    total = tl.zeros([BLOCK_I, BLOCK_O], tl.float32)
    for v0 in range(split * share, split * share + share, BLOCK_V):
        v = v0 + tl.arange(0, BLOCK_V)
        at, there = _places(row, v, voxels, outputs, BLOCK_O)
        tile = _features(features, row // sets, v, voxels, inputs, BLOCK_I)
        total += tl.dot(tl.trans(tile), tl.load(dy + at, there, other=0), input_precision="ieee")
    i, o = tl.arange(0, BLOCK_I)[:, None], tl.arange(0, BLOCK_O)[None, :]
    to = ((split * tl.num_programs(0) + row) * inputs + i) * outputs + o
    tl.store(parts + to, total, (i < inputs) & (o < outputs))


def forward(rows: Tensor, features: Tensor, matrix: Tensor) -> Tensor:
    """Return rows + features matrix, B x K x V x O, for dense features, B x V x I, and matrices, B x K x I x O."""
    grid, sizes, blocks = _plan(rows, features)
    y = torch.empty_like(rows)
    _project[grid](rows, features, matrix.contiguous(), y, *sizes, **blocks)
    return y


def backward(dy: Tensor, features: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the features and, in float32, of the matrices."""
    grid, sizes, blocks = _plan(dy, features)
    dx = torch.empty_like(features)
    _project_gradient_features[grid](dy, matrix.contiguous(), dx, *sizes, **blocks)
    count, tiles = len(dy) * dy.shape[1], grid[0]
    share = triton.cdiv(tiles, max(1, min(tiles, BLOCKS // count)))
    splits = triton.cdiv(tiles, share)
    parts = torch.empty(splits, *matrix.shape, dtype=torch.float32, device=dy.device)
    _project_gradient_matrix[count, splits](dy, features, parts, *sizes, share * blocks["BLOCK_V"], **blocks)
    return dx, parts.sum(0)


def _plan(rows: Tensor, features: Tensor) -> tuple[tuple[int, int], tuple[int, ...], dict[str, Any]]:
    """Return the grid, the sizes, and those of the blocks, of which matrix products need 16."""
    b, k, voxels, outputs = rows.shape
    inputs = features.shape[2]
    is_small = inputs <= SMALL
    block_v = 128 if is_small else 64
    blocks = {
        "BLOCK_V": block_v,
        "BLOCK_I": max(16, triton.next_power_of_2(inputs)),
        "BLOCK_O": max(16, triton.next_power_of_2(outputs)),
        "num_stages": 2 if is_small else 1,
    }
    return (triton.cdiv(voxels, block_v), b), (k, voxels, inputs, outputs), blocks

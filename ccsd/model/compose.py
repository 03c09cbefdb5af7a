"""Compose(S): what the decoder sees of the modalities in a subset S, and what stands in for the others.

A modality in S contributes its own features, a modality outside S the mean of the shared features over S. Nothing of
a modality outside S reaches the result. The subsets of a sample are consecutive, as its features are in memory.

Shapes: B batch, K subsets, M modalities, m encoded modalities (those whose features exist), C channels.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ccsd.model.layout import beside, on_gpu, rows_of
from ccsd.triton import by_triton


def select(values: Tensor, axis: int, encoded: Sequence[int]) -> Tensor:
    """Return the entries of the encoded modalities along an axis. Indexing with a list would wait for the GPU."""
    if tuple(encoded) == tuple(range(values.shape[axis])):
        return values
    return torch.stack([values.select(axis, modality) for modality in encoded], axis)


def of_modalities(x: Tensor, count: int) -> Tensor:
    """Return B*count x C x D x H x W as B x count x C x D x H x W, on GPUs in the order that projections read."""
    return torch.unflatten(beside(x, count), 1, (count, -1)) if on_gpu(x) else torch.unflatten(x, 0, (-1, count))


def bottleneck_slots(fused: Tensor, shared: Tensor, subsets: Tensor, encoded: Sequence[int]) -> Tensor:
    """Fill the bottleneck slots of each subset.

    Parameters
    ----------
    fused
        B x m x C x d x h x w, f_m = r_m + C([r_m; s_m]) of each encoded modality.
    shared
        B x m x C x d x h x w, the shared features r_m.
    subsets
        B x K x M bool; every subset lies within the encoded modalities and is not empty.
    encoded
        The modality index of each of the m entries.

    Returns
    -------
    Tensor
        (B*K) x (M*C) x d x h x w.
    """
    chosen = select(subsets, -1, encoded).to(shared.dtype)
    mean = torch.einsum("bkm,bmcdhw->bkcdhw", chosen / chosen.sum(-1, keepdim=True), shared)
    # A modality that is not encoded is in no subset; its entry is not used.
    of_slot = [list(encoded).index(modality) if modality in encoded else 0 for modality in range(subsets.shape[-1])]
    own = select(fused, 1, of_slot)
    slots = torch.where(subsets[..., None, None, None, None], own[:, None], mean.unsqueeze(2))
    return slots.flatten(2, 3).flatten(0, 1)


class SubsetProjection(nn.Module):
    """A 1 x 1 x 1 convolution over the skip slots, computed without building them.

    The slots are linear in the modalities' features h_j: slot m is h_m if m is in S and the mean of h over S
    otherwise. So the convolution with weights W_m over the slots equals one with the weights
    W_j + sum of W_m over the absent m / |S| over the features of S, one matrix product for all subsets.
    """

    def __init__(self, modalities: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        bound = (modalities * in_channels) ** -0.5
        self.weight = nn.Parameter(torch.empty(modalities, out_channels, in_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, features: Tensor, subsets: Tensor, encoded: Sequence[int], up: nn.Module, x: Tensor) -> Tensor:
        """Project B x m x C x ... features for B x K x M subsets and add them to `up(x)`, (B*K) x C' x ...."""
        weight = select(_subset_weights(self.weight, subsets), 2, encoded)
        onto = up(x, self.bias)
        if on_gpu(x):
            return _projected_in_rows(features, weight, onto)
        b, k = subsets.shape[:2]
        matrix = weight.permute(0, 1, 3, 2, 4).reshape(b, k * weight.shape[3], -1)
        flat = features.flatten(3).flatten(1, 2)
        projected = torch.baddbmm(onto.reshape(b, matrix.shape[1], -1), matrix.to(flat.dtype), flat)
        return projected.view(onto.shape)


def _projected_in_rows(features: Tensor, weight: Tensor, onto: Tensor) -> Tensor:
    """Add the projection to `onto` in channels-last order; `weight` is B x K x m x C' x C."""
    b, k = weight.shape[:2]
    matrix = weight.permute(0, 1, 2, 4, 3).flatten(2, 3)
    flat = rows_of(features.flatten(1, 2)).reshape(b, -1, matrix.shape[2])
    rows = rows_of(onto).reshape(b, k, flat.shape[1], -1)
    with torch.autocast("cuda", enabled=False):
        if torch.compiler.is_compiling():
            sums = rows + flat[:, None] @ matrix.to(flat.dtype)
        else:
            sums = _Projection.apply(rows, flat.to(rows.dtype), matrix)  # type: ignore[no-untyped-call]
    return sums.view(-1, *onto.shape[2:], onto.shape[1]).movedim(-1, 1)


class _Projection(torch.autograd.Function):
    """Add the products of B x V x c features with B x K x c x C' matrices to B x K x V x C' rows.

    The gradient of the matrices, a sum over all voxels, is computed in parts, because the library's choice for it would
    use few of a GPU's multiprocessors. Few channels of 16 bits are for kernels that read the features once for all K.
    """

    PARTS = 64
    """Parts of a gradient of 64 x 64 numbers; a larger one needs fewer to be computed everywhere on a GPU."""
    MOST = 256 * 32
    """Numbers in a matrix that every GPU's multiprocessors keep at hand."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, features: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(features, matrix)
        few = matrix[0, 0].numel() <= _Projection.MOST and rows.dtype in (torch.bfloat16, torch.float16)
        ctx.by_triton = few and by_triton(rows)
        if ctx.by_triton:
            from ccsd.model import projection_kernels

            return projection_kernels.forward(rows, features, matrix)
        sums = rows.clone()
        for total, one, weights in zip(sums, features, matrix.to(sums.dtype), strict=True):
            for k, each in enumerate(weights):
                total[k].addmm_(one, each)
        return sums

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, matrix = ctx.saved_tensors
        grad = grad.contiguous()
        if ctx.by_triton:
            from ccsd.model import projection_kernels

            d_features, d_matrix = projection_kernels.backward(grad, features, matrix)
            return grad, d_features, d_matrix.to(matrix.dtype)
        weights = matrix.to(grad.dtype).mT
        d_features, d_matrix = torch.empty_like(features), torch.empty_like(matrix)
        parts = math.gcd(grad.shape[2], max(1, _Projection.PARTS * 64**2 // matrix[0, 0].numel()))
        for b, one in enumerate(features):
            split = one.unflatten(0, (parts, -1)).mT
            for k, each in enumerate(grad[b]):
                d_features[b].addmm_(each, weights[b, k], beta=int(k > 0))
                d_matrix[b, k] = torch.bmm(split, each.unflatten(0, (parts, -1))).float().sum(0)
        return grad, d_features, d_matrix


def _subset_weights(weight: Tensor, subsets: Tensor) -> Tensor:
    """Return B x K x M x C' x C: the weight of each modality's features in each subset, 0 outside the subset."""
    inside = subsets.to(weight.dtype)
    absent = torch.einsum("bkm,moi->bkoi", 1 - inside, weight) / inside.sum(-1)[..., None, None]
    return inside[..., None, None] * (weight + absent.unsqueeze(2))

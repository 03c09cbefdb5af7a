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

from ccsd.model.layout import beside, channels_last, neighbours, on_gpu, swap_middle


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

    def forward(
        self, features: Tensor, subsets: Tensor, encoded: Sequence[int], up: nn.Module, x: Tensor
    ) -> tuple[Tensor, int]:
        """Project B x m x C x ... features for B x K x M subsets and add them to `up(x)`, (B*K) x C' x ....

        Returns the sum, and the number of subsets that are side by side in its channels: 1 on CPUs.
        """
        weight = select(_subset_weights(self.weight, subsets), 2, encoded)
        onto = up(x, self.bias)
        if on_gpu(x):
            return _project_beside(features, weight, onto)
        b, k = subsets.shape[:2]
        matrix = weight.permute(0, 1, 3, 2, 4).reshape(b, k * weight.shape[3], -1)
        flat = features.flatten(3).flatten(1, 2)
        projected = torch.baddbmm(onto.reshape(b, matrix.shape[1], -1), matrix.to(flat.dtype), flat)
        return projected.view(onto.shape), 1


def _project_beside(features: Tensor, weight: Tensor, onto: Tensor) -> tuple[Tensor, int]:
    """Add the projection to `onto` in channels-last order, and put the channels of several subsets side by side.

    `weight` is B x K x m x C' x C.
    """
    b, k, _, outputs, _ = weight.shape
    count = neighbours(k, outputs)
    matrix = torch.unflatten(weight, 1, (-1, count)).permute(0, 1, 3, 5, 2, 4).flatten(4).flatten(2, 3).flatten(0, 1)
    flat = channels_last(features.flatten(1, 2)).movedim(1, -1).reshape(b, -1, matrix.shape[1])
    rows = channels_last(onto).movedim(1, -1).reshape(b * k // count, count, flat.shape[1], outputs)
    with torch.autocast("cuda", enabled=False):
        if torch.compiler.is_compiling():
            base = torch.unflatten(rows.transpose(1, 2).flatten(2), 0, (b, -1))
            sums = (base + flat[:, None] @ torch.unflatten(matrix.to(flat.dtype), 0, (b, -1))).flatten(0, 1)
        else:
            sums = _Projection.apply(rows, flat.to(rows.dtype), matrix)  # type: ignore[no-untyped-call]
    return sums.reshape(-1, *onto.shape[2:], count * outputs).movedim(-1, 1), count


class _Projection(torch.autograd.Function):
    """Swap the middle axes of n x count x V x C' rows, and add the products of B x V x c features with n x c x C'.

    There is one product for each of the n, in place. The gradient of the matrices, a sum over all voxels, is computed
    in parts, because the library's choice for it would use few of a GPU's multiprocessors.
    """

    PARTS = 64

    @staticmethod
    def forward(ctx: Any, rows: Tensor, features: Tensor, matrix: Tensor) -> Tensor:
        sums = (swap_middle(rows) if rows.shape[1] > 1 else rows.transpose(1, 2).clone()).flatten(2)
        each = len(matrix) // len(features)
        for n, (total, weights) in enumerate(zip(sums, matrix.to(sums.dtype), strict=True)):
            total.addmm_(features[n // each], weights)
        ctx.save_for_backward(features, matrix)
        ctx.count = rows.shape[1]
        return sums

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, matrix = ctx.saved_tensors
        grad = grad.contiguous()
        each, weights = len(matrix) // len(features), matrix.to(grad.dtype).transpose(1, 2)
        d_features = torch.empty_like(features)
        for n, one in enumerate(grad):
            target = d_features[n // each]
            target.addmm_(one, weights[n], beta=int(n % each > 0))
        parts = math.gcd(grad.shape[1], _Projection.PARTS)
        d_matrix = torch.stack(
            [
                torch.bmm(features[n // each].unflatten(0, (parts, -1)).transpose(1, 2), one.unflatten(0, (parts, -1)))
                .float()
                .sum(0)
                for n, one in enumerate(grad)
            ]
        )
        rows = torch.unflatten(grad, 2, (ctx.count, -1))
        return swap_middle(rows), d_features, d_matrix.to(matrix.dtype)


def _subset_weights(weight: Tensor, subsets: Tensor) -> Tensor:
    """Return B x K x M x C' x C: the weight of each modality's features in each subset, 0 outside the subset."""
    inside = subsets.to(weight.dtype)
    absent = torch.einsum("bkm,moi->bkoi", 1 - inside, weight) / inside.sum(-1)[..., None, None]
    return inside[..., None, None] * (weight + absent.unsqueeze(2))

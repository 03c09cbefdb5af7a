"""Compose(S): what the decoder sees of the modalities in a subset S, and what stands in for the others.

A modality in S contributes its own features, a modality outside S the mean of the shared features over S. Nothing of
a modality outside S reaches the result. The subsets of a sample follow one another, as its features lie in memory.

Shapes: B batch, K subsets, M modalities, m encoded modalities (those whose features exist), C channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def select(values: Tensor, axis: int, encoded: Sequence[int]) -> Tensor:
    """Return the entries of the encoded modalities along an axis. An index by a list would wait for the GPU."""
    return torch.stack([values.select(axis, modality) for modality in encoded], axis)


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
    slots = []
    for modality in range(subsets.shape[-1]):
        if modality in encoded:
            inside = subsets[..., modality, None, None, None, None]
            slots.append(torch.where(inside, fused[:, list(encoded).index(modality), None], mean))
        else:
            slots.append(mean)
    return torch.stack(slots, dim=2).flatten(2, 3).flatten(0, 1)


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

    def forward(self, features: Tensor, subsets: Tensor, encoded: Sequence[int], onto: Tensor) -> Tensor:
        """Project B x m x C x ... features for B x K x M subsets and add them to `onto`, (B*K) x C' x ...."""
        weight = select(_subset_weights(self.weight, subsets), 2, encoded)
        b, k = subsets.shape[:2]
        matrix = weight.permute(0, 1, 3, 2, 4).reshape(b, k * weight.shape[3], -1)
        flat = features.flatten(3).flatten(1, 2)
        onto = onto + self.bias.to(onto.dtype).view(1, -1, 1, 1, 1)
        projected = torch.baddbmm(onto.reshape(b, matrix.shape[1], -1), matrix.to(flat.dtype), flat)
        return projected.view(onto.shape)


def _subset_weights(weight: Tensor, subsets: Tensor) -> Tensor:
    """Return B x K x M x C' x C: the weight of each modality's features in each subset, 0 outside the subset."""
    inside = subsets.to(weight.dtype)
    absent = torch.einsum("bkm,moi->bkoi", 1 - inside, weight) / inside.sum(-1)[..., None, None]
    return inside[..., None, None] * (weight + absent.unsqueeze(2))

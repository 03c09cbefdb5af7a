"""A backbone that composes: an encoder for each sequence, and a decoder of the mean over those of a subset."""

import torch
from torch import nn
from torch.nn import functional


def block(before, after, stride=1):
    return nn.Sequential(
        nn.Conv3d(before, after, 3, stride, padding=1), nn.GroupNorm(1, after), nn.LeakyReLU(inplace=True)
    )


class MeanOfSequences(nn.Module):
    multiple = (2, 2, 2)

    def __init__(self, task, width=8):
        super().__init__()
        self.fine = nn.ModuleList(block(1, width) for _ in task.modalities)
        self.coarse = nn.ModuleList(block(width, 2 * width, stride=2) for _ in task.modalities)
        self.bottom = block(2 * width, width)
        self.head = nn.Conv3d(2 * width, len(task.regions), 1)

    def encode(self, image, available):
        fine = [encoder(image[:, m : m + 1]) for m, encoder in enumerate(self.fine)]
        coarse = [encoder(x) for encoder, x in zip(self.coarse, fine, strict=True)]
        return torch.stack(fine, 1), torch.stack(coarse, 1)  # B x M x C x ...

    def compose(self, features, subsets):
        share = subsets / subsets.sum(-1, keepdim=True)
        return [torch.einsum("kbm,bmcdhw->kbcdhw", share.to(level.dtype), level) for level in features]

    def decode(self, composed):
        fine, coarse = (level.flatten(0, 1) for level in composed)
        up = functional.interpolate(self.bottom(coarse), scale_factor=2.0)
        return self.head(torch.cat([fine, up], 1)).unflatten(0, composed[0].shape[:2])

"""Any network: the sequences and which of them are there as channels, dropout, and a second, coarser output."""

import torch
from torch import nn
from torch.nn import functional

from example_plugin.backbone import block


class Concatenation(nn.Module):
    multiple = (2, 2, 2)

    def __init__(self, task, width=8, dropout=0.1):
        super().__init__()
        sequences, regions = len(task.modalities), len(task.regions)
        self.fine = block(2 * sequences, width)
        self.coarse = nn.Sequential(block(width, width, stride=2), nn.Dropout3d(dropout), block(width, width))
        self.head = nn.Conv3d(2 * width, regions, 1)
        self.coarse_head = nn.Conv3d(width, regions, 1)

    def forward(self, image, available):
        there = available[..., None, None, None].to(image.dtype).expand_as(image)
        fine = self.fine(torch.cat([image, there], 1))
        coarse = self.coarse(fine)
        logits = self.head(torch.cat([fine, functional.interpolate(coarse, scale_factor=2.0)], 1))
        return [logits, self.coarse_head(coarse)] if self.training else logits

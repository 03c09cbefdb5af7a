"""The backbones `light` and `unet`: residual 3-D U-Nets with a light decoder, whose encoders cost most.

All combinations of one volume share the encoding and pay one decode each, so the decoder decides what a combination
costs: it works on summed skips of one modality's width instead of all of them concatenated.

`light` saves computation where there are many voxels. At full resolution it has half the channels of `unet` and one
convolution where that has two, in the shared encoder and the decoder; the specific encoders, of which only the coarsest
features are used, begin at half the resolution with half the channels.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ccsd.model.blocks import Conv, ConvBlock, DeepHeads, ResidualBlock, Stages, Up, start_low
from ccsd.model.compose import SubsetProjection

WIDEST = 16
"""Channels stop growing at 16 times the first level's width (16 to 256 in the family's usual size)."""


def channels(width: int, levels: int) -> tuple[int, ...]:
    """Return the channels of each level: `channels(16, 5)` is 16, 32, 64, 128, 256."""
    return tuple(width * min(2**level, WIDEST) for level in range(levels))


def light_channels(width: int, levels: int) -> tuple[int, ...]:
    """Return the channels of each level of `light`: `light_channels(16, 5)` is 8, 32, 64, 128, 256.

    The finest level has half the width, but at least 8 if the width allows it: with 4, boundaries stayed coarse.
    """
    finest, *coarser = channels(width, levels)
    return (min(finest, max(8, finest // 2)), *coarser)


class Encoder(nn.Module):
    """From one image to a pyramid of features; with `groups=4`, four such networks in one.

    Takes N x groups x D x H x W, returns one map per level, N x (groups * C_l) x D/2^l x H/2^l x W/2^l, starting
    at the resolution of its first block.
    """

    def __init__(self, first: nn.Module, widths: Sequence[int], groups: int = 1) -> None:
        super().__init__()
        halving = (ResidualBlock(before, after, stride=2, groups=groups) for before, after in pairwise(widths))
        self.levels = Stages([first, *halving])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level, finest first."""
        return list(self.levels.outputs(x))


def encoder(widths: Sequence[int], groups: int = 1) -> Encoder:
    """Return an encoder of `unet`."""
    return Encoder(ResidualBlock(1, widths[0], groups=groups), widths, groups)


def light_encoder(widths: Sequence[int]) -> Encoder:
    """Return the shared encoder of `light`."""
    return Encoder(ConvBlock(1, widths[0]), widths)


def light_specific_encoder(widths: Sequence[int], groups: int) -> Encoder:
    """Return the specific encoders of `light`; their last level is as wide as the shared encoder's, which it joins."""
    narrow = [*(max(1, width // 2) for width in widths[1:-1]), widths[-1]]
    return Encoder(ResidualBlock(1, narrow[0], stride=2, groups=groups), narrow, groups)


class Decoder(nn.Module):
    """From composed bottleneck slots and skips to region logits, for K subsets of B images at once.

    Takes slots (B*K) x (M*C) x d x h x w, the modalities' skips and the B x K x M subsets; returns
    (B*K) x regions x D x H x W logits, in training followed by those of the coarser `deep` outputs, finer first.
    `light` has one convolution at full resolution instead of two, and sums logits of full and half resolution: the few
    channels at full resolution then only have to learn the boundaries.
    """

    def __init__(self, widths: Sequence[int], modalities: int, regions: int, *, deep: bool, light: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(modalities * widths[-1], widths[-1], 1)
        self.bottleneck = ResidualBlock(widths[-1], widths[-1])
        finer = list(reversed(widths[:-1]))
        coarser = list(reversed(widths[1:]))
        self.up = nn.ModuleList(Up(c, f) for c, f in zip(coarser, finer, strict=True))
        self.skip = nn.ModuleList(SubsetProjection(modalities, f, f) for f in finer)
        self.mix = nn.ModuleList(ResidualBlock(f, f) for f in finer[:-1])
        self.mix.append((ConvBlock if light else ResidualBlock)(widths[0], widths[0]))
        self.head = Conv(widths[0], regions, 1)
        self.coarse_head = nn.ConvTranspose3d(widths[1], regions, 2, 2, bias=False) if light else None
        self.deep = DeepHeads(widths[1:-1] if deep else (), regions)
        start_low(self.head)

    def forward(self, slots: Tensor, skips: Sequence[Tensor], subsets: Tensor, encoded: Sequence[int]) -> list[Tensor]:
        """Decode; `skips` are B x m x C_l x ... for the `encoded` modalities, finest first."""
        x = self.bottleneck(self.reduce(slots))
        outputs = [x]
        for up, skip, mix, features in zip(self.up, self.skip, self.mix, reversed(skips), strict=True):
            x = mix(skip(features, subsets, encoded, up, x))
            outputs.append(x)
        logits: Tensor = self.head(x)
        if self.coarse_head is not None:
            logits = logits + self.coarse_head(outputs[-2])
        return [logits, *self.deep(outputs[-2::-1])]

"""The `unet` backbone: a residual 3-D U-Net whose encoder costs most and whose decoder is light.

All combinations of one volume share the encoding and pay one decode each, so the decoder decides what a combination
costs: it works on summed skips of one modality's width instead of all of them concatenated.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ccsd.model.blocks import Conv, DeepHeads, ResidualBlock, Stages, Up, start_low
from ccsd.model.compose import SubsetProjection
from ccsd.model.layout import apart

WIDEST = 16
"""Channels stop growing at 16 times the first level's width (16 to 256 in the family's usual size)."""


def channels(width: int, levels: int) -> tuple[int, ...]:
    """Return the channels of each level: `channels(16, 5)` is 16, 32, 64, 128, 256."""
    return tuple(width * min(2**level, WIDEST) for level in range(levels))


class Encoder(nn.Module):
    """From one image to a pyramid of features; with `groups=4`, four such networks in one.

    Takes N x groups x D x H x W, returns one map per level, N x (groups * C_l) x D/2^l x H/2^l x W/2^l.
    """

    def __init__(self, widths: Sequence[int], groups: int = 1) -> None:
        super().__init__()
        inputs = (1, *widths[:-1])
        self.levels = Stages(
            ResidualBlock(before, after, stride=1 if level == 0 else 2, groups=groups)
            for level, (before, after) in enumerate(zip(inputs, widths, strict=True))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level, finest first."""
        return list(self.levels.outputs(x))


class Decoder(nn.Module):
    """From composed bottleneck slots and skips to region logits, for K subsets of B images at once.

    Takes slots (B*K) x (M*C) x d x h x w, the modalities' skips and the B x K x M subsets; returns
    (B*K) x regions x D x H x W logits, in training followed by those of the coarser `deep` outputs, finer first.
    """

    def __init__(self, widths: Sequence[int], modalities: int, regions: int, *, deep: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(modalities * widths[-1], widths[-1], 1)
        self.bottleneck = ResidualBlock(widths[-1], widths[-1])
        finer = list(reversed(widths[:-1]))
        coarser = list(reversed(widths[1:]))
        self.up = nn.ModuleList(Up(c, f) for c, f in zip(coarser, finer, strict=True))
        self.skip = nn.ModuleList(SubsetProjection(modalities, f, f) for f in finer)
        self.mix = nn.ModuleList(ResidualBlock(f, f) for f in finer)
        self.head = Conv(widths[0], regions, 1)
        self.deep = DeepHeads(widths[1:-1] if deep else (), regions)
        start_low(self.head)

    def forward(self, slots: Tensor, skips: Sequence[Tensor], subsets: Tensor, encoded: Sequence[int]) -> list[Tensor]:
        """Decode; `skips` are B x m x C_l x ... for the `encoded` modalities, finest first."""
        x = self.bottleneck(self.reduce(slots))
        outputs = []
        for up, skip, mix, features in zip(self.up, self.skip, self.mix, reversed(skips), strict=True):
            joined, count = skip(features, subsets, encoded, up, x)
            joined = mix(joined)
            x = apart(joined, count)
            outputs.append(x)
        return [apart(self.head(joined), count), *self.deep(outputs[-2::-1])]

"""The `shaspec` backbone: a 3-D ResNet-50 with weight-standardised convolutions and ASPP, about 188 M parameters.

Layer sizes are those of ShaSpec's published code (github.com/billhhh/ShaSpec, read for facts); this is our own
implementation, with group normalisation in place of instance normalisation.

Resolutions for an input of 80 x 160 x 160: skips of 64 channels at 80^3, 256 at 40^3, 512 at 20^3 and 1024 at 10^3,
bottleneck of 256 at 5^3. Depth must be a multiple of 16, height and width of 32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccsd.model.blocks import SLOPE, Conv, DeepHeads, Norm, Stages, Up, start_low
from ccsd.model.compose import SubsetProjection
from ccsd.model.layout import apart

STEM = 64
PLANES = (64, 128, 256, 320)
BLOCKS = (3, 4, 6, 3)
EXPANSION = 4
BOTTLENECK = 256
SKIPS = (STEM, *(EXPANSION * planes for planes in PLANES[:-1]))
UP = (32, 64, 128, 256)
"""Channels of the decoder, at the resolution of each skip, finest first."""
DILATIONS = (2, 4, 8)
IN_PLANE = (1, 2, 2)
"""The first stride: slices are thick in the data that the network was designed for."""


class StandardConv(Conv):
    """A convolution whose filters have mean 0 and standard deviation 1 over their inputs (Qiao et al. 2019)."""

    EPSILON = 1e-5

    def kernel(self, weight: Tensor) -> Tensor:
        """Return the standardised weights."""
        centred = weight - weight.mean((1, 2, 3, 4), keepdim=True)
        scale = centred.flatten(1).std(1).clamp(min=self.EPSILON)
        return centred / scale.view(-1, 1, 1, 1, 1)


class ConvNorm(nn.ModuleList):
    """Convolution and normalisation, for each of the groups; channels are per group."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int = 1,
        stride: int | tuple[int, int, int] = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        padding = dilation * (size // 2)
        conv = StandardConv(
            in_channels * groups, out_channels * groups, size, stride, padding, dilation, groups=groups, bias=False
        )
        super().__init__([conv, Norm(out_channels * groups, groups)])

    def forward(self, x: Tensor, added: Tensor | None = None, slope: float = SLOPE) -> Tensor:
        """Map N x C x D x H x W to N x C' x D/stride x H/stride x W/stride, add something and rectify."""
        conv, norm = self
        normalised: Tensor = norm(conv(x), added, slope)
        return normalised


class Bottleneck(nn.Module):
    """The residual block of ResNet-50: narrow, convolve, widen."""

    def __init__(self, in_channels: int, planes: int, stride: int, groups: int) -> None:
        super().__init__()
        out_channels = EXPANSION * planes
        self.narrow = ConvNorm(in_channels, planes, groups=groups)
        self.convolve = ConvNorm(planes, planes, 3, stride, groups=groups)
        self.widen = ConvNorm(planes, out_channels, groups=groups)
        self.shortcut = (
            ConvNorm(in_channels, out_channels, 1, stride, groups=groups)
            if stride > 1 or in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x D x H x W to N x C' x D/stride x H/stride x W/stride."""
        y = self.convolve(self.narrow(x))
        widened: Tensor = self.widen(y, x if self.shortcut is None else self.shortcut(x, slope=1.0))
        return widened


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling: views of several dilations and the global mean, mixed (Chen et al. 2017)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.width = width
        self.views = nn.ModuleList(
            [
                ConvNorm(width, width, groups=groups),
                *(ConvNorm(width, width, 3, dilation=d, groups=groups) for d in DILATIONS),
            ]
        )
        self.whole = ConvNorm(width, width, groups=groups)
        self.mix = ConvNorm((len(DILATIONS) + 2) * width, width, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x (groups * C) x d x h x w to the same shape."""
        views = [view(x) for view in self.views]
        whole = self.whole(x.mean((-3, -2, -1), keepdim=True))
        views.append(whole.expand_as(x))
        # Side by side within each group, so that no group sees another's views.
        stacked = torch.cat([torch.unflatten(view, 1, (-1, self.width)) for view in views], dim=2).flatten(1, 2)
        mixed: Tensor = self.mix(stacked)
        return mixed


class Encoder(nn.Module):
    """From one image to skips and bottleneck; with `groups=4`, four such networks in one."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.stem = ConvNorm(1, STEM, 7, IN_PLANE, groups=groups)
        stages, before = [], STEM
        for stage, (planes, count) in enumerate(zip(PLANES, BLOCKS, strict=True)):
            stride = 1 if stage == 0 else 2
            blocks = [Bottleneck(before, planes, stride, groups)]
            before = EXPANSION * planes
            blocks += [Bottleneck(before, planes, 1, groups) for _ in range(count - 1)]
            stages.append(Stages(blocks))
        self.stages = nn.ModuleList(stages)
        self.narrow = ConvNorm(before, BOTTLENECK, groups=groups)
        self.aspp = Aspp(BOTTLENECK, groups)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the skips, finest first, and the bottleneck."""
        x = self.stem(x)
        pyramid = [x]
        x = functional.max_pool3d(x, 3, 2, padding=1)
        for stage in self.stages:
            x = stage(x)
            pyramid.append(x)
        deepest = self.narrow(pyramid.pop())
        return [*pyramid, self.aspp(deepest)]


class BasicBlock(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, 3)
        self.second = ConvNorm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x D x H x W to the same shape."""
        found: Tensor = self.second(self.first(x), x)
        return found


class Decoder(nn.Module):
    """From composed slots and skips to region logits; the same interface as the `unet` decoder."""

    def __init__(self, modalities: int, regions: int, *, deep: bool) -> None:
        super().__init__()
        finer = list(reversed(UP))
        inputs = [modalities * BOTTLENECK, *finer[:-1]]
        self.up = nn.ModuleList(Up(c, f) for c, f in zip(inputs, finer, strict=True))
        self.skip = nn.ModuleList(
            SubsetProjection(modalities, s, f) for s, f in zip(reversed(SKIPS), finer, strict=True)
        )
        self.mix = nn.ModuleList(BasicBlock(f) for f in finer)
        self.head = Conv(UP[0], regions, 1)
        self.deep = DeepHeads(UP[1:] if deep else (), regions)
        start_low(self.head)

    def forward(self, slots: Tensor, skips: Sequence[Tensor], subsets: Tensor, encoded: Sequence[int]) -> list[Tensor]:
        """Decode; see `ccsd.model.unet.Decoder`."""
        x = slots
        outputs = []
        for up, skip, mix, features in zip(self.up, self.skip, self.mix, reversed(skips), strict=True):
            joined, count = skip(features, subsets, encoded, up, x)
            joined = mix(joined)
            x = apart(joined, count)
            outputs.append(x)
        logits = functional.interpolate(
            apart(self.head(joined), count), scale_factor=IN_PLANE, mode="trilinear", align_corners=False
        )
        return [logits, *self.deep(outputs[-2::-1])]

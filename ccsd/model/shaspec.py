"""The `shaspec` backbone: a 3-D ResNet-50 with weight-standardised convolutions and ASPP, about 188 M parameters.

Layer sizes are those of ShaSpec's published code (github.com/billhhh/ShaSpec, read for facts); this is our own
implementation, with group normalisation in place of instance normalisation.

Resolutions for an input of 80 x 160 x 160: skips of 64 channels at 80^3, 256 at 40^3, 512 at 20^3 and 1024 at 10^3,
bottleneck of 256 at 5^3. Depth must be a multiple of 16, height and width of 32.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ccsd.model.blocks import SLOPE, Conv, DeepHeads, Norm, Stages, Up, start_low
from ccsd.model.compose import SubsetProjection
from ccsd.model.layout import for_autocast
from ccsd.model.pooling import max_pool

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

    def kernel(self) -> Tensor:
        """Return the standardised weights."""
        filters = self.weight.flatten(1)
        count = filters.shape[1]
        # One kernel in each direction on GPUs. It divides the sum of squares by the count, not by one less.
        unbiased = filters.new_full((count,), math.sqrt((count - 1) / count))
        return functional.layer_norm(filters, (count,), unbiased, eps=self.EPSILON**2).view_as(self.weight)


class Stem(StandardConv):
    """The first convolution, of the 7 x 7 x 7 voxels of one image around every second voxel of every slice.

    Libraries have no fast kernel for one channel. So on GPUs 8 slices of 2 x 2 voxels become 32 channels, and the
    kernel, with zeros in front of it, 4 x 4 of these.
    """

    def __init__(self, groups: int) -> None:
        super().__init__(groups, STEM * groups, 7, IN_PLANE, 3, groups=groups, bias=False)

    def _one(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = functional.pad(for_autocast(x).squeeze(1), (4, 2, 4, 2, 4, 3))
        cubes = x.unfold(1, 8, 1).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
        kernel = functional.pad(weight.squeeze(1), (1, 0, 1, 0, 1, 0))
        kernel = kernel.reshape(-1, 8, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return functional.conv3d(cubes.movedim(-1, 1), kernel.movedim(-1, 1).unsqueeze(2), bias)


class ConvNorm(nn.ModuleList):
    """A convolution and its normalisation."""

    def __init__(self, conv: Conv) -> None:
        super().__init__([conv, Norm(conv.out_channels, conv.groups)])

    def forward(self, x: Tensor, added: Tensor | None = None, slope: float = SLOPE) -> Tensor:
        """Map N x C x D x H x W to N x C' x D/stride x H/stride x W/stride, add something and rectify."""
        conv, norm = self
        normalised: Tensor = norm(conv(x), added, slope)
        return normalised


def conv_norm(
    in_channels: int, out_channels: int, size: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1
) -> ConvNorm:
    """Return a convolution and its normalisation, for each of the groups; channels are per group."""
    wide_in, wide_out, padding = in_channels * groups, out_channels * groups, dilation * (size // 2)
    return ConvNorm(StandardConv(wide_in, wide_out, size, stride, padding, dilation, groups=groups, bias=False))


class Bottleneck(nn.Module):
    """The residual block of ResNet-50: narrow, convolve, widen."""

    def __init__(self, in_channels: int, planes: int, stride: int, groups: int) -> None:
        super().__init__()
        out_channels = EXPANSION * planes
        self.narrow = conv_norm(in_channels, planes, groups=groups)
        self.convolve = conv_norm(planes, planes, 3, stride, groups=groups)
        self.widen = conv_norm(planes, out_channels, groups=groups)
        self.shortcut = (
            conv_norm(in_channels, out_channels, 1, stride, groups=groups)
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
                conv_norm(width, width, groups=groups),
                *(conv_norm(width, width, 3, dilation=d, groups=groups) for d in DILATIONS),
            ]
        )
        self.whole = conv_norm(width, width, groups=groups)
        self.mix = conv_norm((len(DILATIONS) + 2) * width, width, groups=groups)

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
        self.stem = ConvNorm(Stem(groups))
        stages, before = [], STEM
        for stage, (planes, count) in enumerate(zip(PLANES, BLOCKS, strict=True)):
            stride = 1 if stage == 0 else 2
            blocks = [Bottleneck(before, planes, stride, groups)]
            before = EXPANSION * planes
            blocks += [Bottleneck(before, planes, 1, groups) for _ in range(count - 1)]
            stages.append(Stages(blocks))
        self.stages = nn.ModuleList(stages)
        self.narrow = conv_norm(before, BOTTLENECK, groups=groups)
        self.aspp = Aspp(BOTTLENECK, groups)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the skips, finest first, and the bottleneck."""
        x = self.stem(x)
        pyramid = [x]
        x = max_pool(x)
        for stage in self.stages:
            x = stage(x)
            pyramid.append(x)
        deepest = self.narrow(pyramid.pop())
        return [*pyramid, self.aspp(deepest)]


class BasicBlock(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels, 3)
        self.second = conv_norm(channels, channels, 3)

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
            x = mix(skip(features, subsets, encoded, up, x))
            outputs.append(x)
        logits = functional.interpolate(self.head(x), scale_factor=IN_PLANE, mode="trilinear", align_corners=False)
        return [logits, *self.deep(outputs[-2::-1])]

"""Convolution blocks that can hold several independent networks.

With `groups=4` a block is four blocks of the same shape, one per modality, in the same parameters: channel
`m * width + c` belongs to modality m and never sees another modality's channels.

Shapes: N batch (or batch x modality), C channels of all groups together, D H W space.
"""

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ccsd.model.layout import JOINED_CHANNELS, apart, beside, channels_last, neighbours, on_gpu
from ccsd.model.normalise import activated_norm

CHANNELS_PER_NORM_GROUP = 8
SLOPE = 0.01
"""Negative slope of every leaky rectifier."""


class Conv(nn.Conv3d):
    """A 3-D convolution of all groups; on GPUs, several narrow groups and samples are computed at once.

    GPUs are slow with groups and with few channels. So neighbours are joined in one kernel that is zero outside its
    diagonal blocks; the result is the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x D x H x W to N x C' x D/stride x H/stride x W/stride; C may be that of several samples."""
        if not on_gpu(x):
            whole: Tensor = self._conv_forward(x, self.kernel(self.weight), self.bias)
            return whole
        return self._joined(x, self.kernel(self.weight), self.stride)

    def _joined(self, x: Tensor, weight: Tensor, stride: Any) -> Tensor:
        inputs, outputs = weight.shape[1], len(weight) // self.groups
        copies = x.shape[1] // (self.groups * inputs)
        sizes = _shares(copies * self.groups, max(inputs, outputs))
        kernels = torch.unflatten(weight, 0, (self.groups, -1)).expand(copies, *[-1] * 6).flatten(0, 1)
        biases: Sequence[Tensor | None] = [None] * len(sizes)
        if self.bias is not None:
            biases = _parts(self.bias.expand(copies, -1).flatten(), [n * outputs for n in sizes])
        maps = _parts(x, [n * inputs for n in sizes], 1)
        found = [
            functional.conv3d(channels_last(y), _diagonal(w), b, stride, self.padding, self.dilation)
            for y, w, b in zip(maps, _parts(kernels, sizes), biases, strict=True)
        ]
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def kernel(self, weight: Tensor) -> Tensor:
        """Return the kernel to convolve with."""
        return weight


class MeanConv(Conv):
    """A 1 x 1 x 1 convolution of the means of cubes of `side` voxels.

    On GPUs it is one convolution: torch's pooling is slow there, and its gradient is not deterministic.
    """

    def __init__(self, in_channels: int, out_channels: int, side: int, groups: int) -> None:
        super().__init__(in_channels, out_channels, 1, groups=groups, bias=False)
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x D x H x W to N x C' x D/side x H/side x W/side; C may be that of several samples."""
        if not on_gpu(x):
            return super().forward(mean_pool(x, self.side))
        return self._joined(x, self.weight.expand(-1, -1, *[self.side] * 3) / self.side**3, self.side)


class Up(nn.ConvTranspose3d):
    """Doubles the resolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, 2)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:  # type: ignore[override]
        """Map N x C x D x H x W to N x C' x 2D x 2H x 2W, and add `shift` to the channels."""
        bias: Tensor = self.bias  # type: ignore[assignment]
        x = channels_last(x) if on_gpu(x) else x
        return functional.conv_transpose3d(x, self.weight, bias + shift, self.stride)


def _parts(x: Tensor, sizes: list[int], axis: int = 0) -> Sequence[Tensor]:
    """Split a tensor; the gradient of torch's split into one part would be a copy."""
    return (x,) if len(sizes) == 1 else torch.split(x, sizes, axis)


def _diagonal(kernels: Tensor) -> Tensor:
    """Return the n * C' x n * C x ... kernel with these n x C' x C x ... kernels on its diagonal, else zeros."""
    if len(kernels) == 1:
        return kernels[0]
    return torch.diag_embed(kernels.movedim(0, -1), dim1=0, dim2=2).flatten(2, 3).flatten(0, 1)


def _shares(count: int, channels: int) -> list[int]:
    """Return, for each convolution, how many of `count` networks with so many channels it computes as one."""
    most = max(1, JOINED_CHANNELS // channels)
    return [min(most, count - first) for first in range(0, count, most)]


class Norm(nn.GroupNorm):
    """Group normalisation whose groups never span two modalities; only scales and shifts maps of one voxel.

    Group instead of instance normalisation because it is several times faster on CPUs. A 1 x 1 x 1 map has no spatial
    statistics to normalise by; its scale and shift still apply, so that every parameter takes part in every step.
    """

    def __init__(self, channels: int, groups: int = 1) -> None:
        own = channels // groups
        parts = next(n for n in range(max(1, own // CHANNELS_PER_NORM_GROUP), 0, -1) if own % n == 0)
        super().__init__(groups * parts, channels)

    def forward(self, x: Tensor, added: Tensor | None = None, slope: float = 1.0) -> Tensor:
        """Normalise N x C x D x H x W, add something and rectify with a negative slope; C may be of several samples."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if x[0, 0].numel() == 1:
            copies = x.shape[1] // self.num_channels
            y = x * weight.repeat(copies).view(1, -1, 1, 1, 1) + bias.repeat(copies).view(1, -1, 1, 1, 1)
        elif on_gpu(x):
            return activated_norm(x, added, self.num_groups, weight, bias, self.eps, slope)
        else:
            y = functional.group_norm(x, self.num_groups, weight, bias, self.eps)
        y = y if added is None else added + y
        return y if slope == 1 else functional.leaky_relu(y, slope)


def mean_pool(x: Tensor, side: int) -> Tensor:
    """Return the means of cubes of `side` voxels.

    On GPUs it uses plain sums, because torch's pooling has no deterministic gradient there; on CPUs pooling is faster.
    """
    if not on_gpu(x):
        return functional.avg_pool3d(x, side)
    depth, height, width = x.shape[-3:]
    return x.reshape(*x.shape[:-3], depth // side, side, height // side, side, width // side, side).mean((-5, -3, -1))


class MeanPool(nn.Module):
    """`mean_pool` as a module."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x D x H x W to N x C x D/side x H/side x W/side."""
        return mean_pool(x, self.side)


def _side_by_side(x: Tensor, conv: Conv) -> int:
    """Return how many samples of a map GPUs put side by side for a narrow convolution; 1 if they already are."""
    is_single = x.shape[1] == conv.in_channels and conv.groups == 1
    return neighbours(len(x), conv.out_channels) if on_gpu(x) and is_single else 1


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions beside a shortcut; a stride halves the resolution.

    `in_channels` and `out_channels` are per group.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        wide_in, wide_out = in_channels * groups, out_channels * groups
        self.first = Conv(wide_in, wide_out, 3, stride, padding=1, groups=groups, bias=False)
        self.first_norm = Norm(wide_out, groups)
        self.second = Conv(wide_out, wide_out, 3, padding=1, groups=groups, bias=False)
        self.second_norm = Norm(wide_out, groups)
        self.shortcut: nn.Module | None = None
        if in_channels != out_channels:
            self.shortcut = MeanConv(wide_in, wide_out, stride, groups)
        elif stride > 1:
            self.shortcut = MeanPool(stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x D x H x W to N x C' x D/stride x H/stride x W/stride; C may be that of several samples."""
        count = _side_by_side(x, self.first)
        x = beside(x, count)
        y = self.second(self.first_norm(self.first(x), slope=SLOPE))
        return apart(self.second_norm(y, x if self.shortcut is None else self.shortcut(x), SLOPE), count)


class ConvBlock(nn.Module):
    """One 3 x 3 x 3 convolution, normalised and rectified; `in_channels` and `out_channels` are per group."""

    def __init__(self, in_channels: int, out_channels: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = Conv(in_channels * groups, out_channels * groups, 3, padding=1, groups=groups, bias=False)
        self.norm = Norm(out_channels * groups, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x D x H x W to N x C' x D x H x W; C may be that of several samples."""
        count = _side_by_side(x, self.conv)
        return apart(self.norm(self.conv(beside(x, count)), slope=SLOPE), count)


class Stages(nn.ModuleList):
    """Modules that run one after another."""

    recompute = False
    """Whether to keep only the modules' outputs, and compute the rest again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the last output."""
        return deque(self.outputs(x), maxlen=1).pop()

    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the output of each module."""
        for stage in self:
            again = self.recompute and torch.is_grad_enabled()
            x = checkpoint(stage, x, use_reentrant=False, preserve_rng_state=False) if again else stage(x)
            yield x


class DeepHeads(nn.ModuleList):
    """Logits of the decoder's coarser outputs, for deep supervision; none outside training."""

    MOST = 2

    def __init__(self, widths: Sequence[int], regions: int) -> None:
        heads = [nn.Conv3d(width, regions, 1) for width in widths[: self.MOST]]
        for head in heads:
            start_low(head)
        super().__init__(heads)

    def forward(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Map the outputs, of which there may be more than heads, to logits; both finer first."""
        return [head(x) for head, x in zip(self, outputs, strict=False)] if self.training else []


def start_low(head: nn.Conv3d) -> None:
    """Start from a low prior: tumours fill a small part of a volume, which would otherwise take steps to learn."""
    nn.init.constant_(head.bias, -2.0)  # type: ignore[arg-type]


def select_groups(module: nn.Module, chosen: Sequence[int], groups: int) -> nn.Module:
    """Return a copy of a grouped network that holds only the chosen groups.

    Every parameter's first axis is split into `groups` equal parts, of which those in `chosen` are kept, so the copy
    computes exactly those groups' outputs and costs only their share.
    """
    part = copy.deepcopy(module)
    for layer in part.modules():
        if isinstance(layer, nn.Conv3d):
            layer.groups = layer.groups // groups * len(chosen)
            layer.in_channels = layer.in_channels // groups * len(chosen)
            layer.out_channels = layer.out_channels // groups * len(chosen)
        elif isinstance(layer, nn.GroupNorm):
            layer.num_groups = layer.num_groups // groups * len(chosen)
            layer.num_channels = layer.num_channels // groups * len(chosen)
    for parameter in part.parameters():
        parts = parameter.data.chunk(groups)
        parameter.data = torch.cat([parts[g] for g in chosen])
    return part

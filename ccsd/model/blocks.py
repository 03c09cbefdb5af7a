"""Convolution blocks that can hold several independent networks.

With `groups=4` a block is four blocks of the same shape, one per modality, in the same parameters: channel
`m * width + c` belongs to modality m and never sees another modality's channels. Called without a group, a block
computes all of them in one convolution, which is fastest on CPUs; called with one, it computes that one from its share
of each parameter, which is fastest on GPUs, where grouped convolutions are slow.

Shapes: N batch (or batch x modality), C channels over all groups or of the one, D H W space.
"""

import copy
from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ccsd.model.group_norm import group_norm

CHANNELS_PER_NORM_GROUP = 8
SLOPE = 0.01
"""Negative slope of every leaky rectifier."""


def on_gpu(x: Tensor) -> bool:
    """Tell whether a tensor is on a GPU, where other ways to the same result are fast."""
    return x.device.type != "cpu"


class Conv(nn.Conv3d):
    """A 3-D convolution of all groups or of one of them."""

    channels_last = False
    """Compute in this layout, which the fast kernels of GPUs have. Only compiled networks gain: others convert back."""

    def forward(self, x: Tensor, group: int | None = None) -> Tensor:
        """Map N x C x D x H x W to N x C' x D/stride x H/stride x W/stride."""
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        if group is None:
            whole: Tensor = self._conv_forward(x, self.kernel(self.weight), self.bias)
            return whole
        kernel = self.kernel(self.weight.chunk(self.groups)[group])
        bias = None if self.bias is None else self.bias.chunk(self.groups)[group]
        return functional.conv3d(x, kernel, bias, self.stride, self.padding, self.dilation)

    def kernel(self, weight: Tensor) -> Tensor:
        """Return what to convolve with."""
        return weight


class Norm(nn.GroupNorm):
    """Group normalisation whose groups never span two modalities; only scales and shifts maps of one voxel.

    Group instead of instance normalisation because it is several times faster on CPUs. A 1 x 1 x 1 map has no spatial
    statistics to normalise by; its scale and shift still apply, so that every parameter takes part in every step.
    """

    def __init__(self, channels: int, groups: int = 1) -> None:
        per_group = max(1, channels // groups // CHANNELS_PER_NORM_GROUP)
        super().__init__(groups * per_group, channels)
        self.groups = groups

    def forward(self, x: Tensor, group: int | None = None) -> Tensor:
        """Normalise N x C x D x H x W."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        count = self.num_groups
        if group is not None:
            weight, bias, count = weight.chunk(self.groups)[group], bias.chunk(self.groups)[group], count // self.groups
        if x[0, 0].numel() == 1:
            return x * weight.view(1, -1, 1, 1, 1) + bias.view(1, -1, 1, 1, 1)
        if on_gpu(x):
            return group_norm(x, count, weight, bias, self.eps)
        return functional.group_norm(x, count, weight, bias, self.eps)


def mean_pool(x: Tensor, side: int) -> Tensor:
    """Return the means of cubes of `side` voxels.

    On GPUs by plain sums, for torch's pooling has no deterministic gradient there; on CPUs it is the faster one.
    """
    if not on_gpu(x):
        return functional.avg_pool3d(x, side)
    depth, height, width = x.shape[-3:]
    return x.reshape(*x.shape[:-3], depth // side, side, height // side, side, width // side, side).mean((-5, -3, -1))


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
        self.stride = stride
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = Conv(wide_in, wide_out, 1, groups=groups, bias=False)

    def forward(self, x: Tensor, group: int | None = None) -> Tensor:
        """Map N x C x D x H x W to N x C' x D/stride x H/stride x W/stride."""
        y = functional.leaky_relu(self.first_norm(self.first(x, group), group), SLOPE)
        y = self.second_norm(self.second(y, group), group)
        if self.stride > 1:
            x = mean_pool(x, self.stride)
        if self.shortcut is not None:
            x = self.shortcut(x, group)
        return functional.leaky_relu(x + y, SLOPE)


class Stages(nn.ModuleList):
    """Modules that run one after another."""

    recompute = False
    """Keep only what goes from module to module, and compute the rest again in the backward pass."""

    def forward(self, x: Tensor, group: int | None = None) -> Tensor:
        """Return the last output."""
        return deque(self.outputs(x, group), maxlen=1).pop()

    def outputs(self, x: Tensor, group: int | None = None) -> Iterator[Tensor]:
        """Yield the output of each module."""
        for stage in self:
            again = self.recompute and torch.is_grad_enabled()
            x = checkpoint(stage, x, group, use_reentrant=False) if again else stage(x, group)
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
    """Start from a low prior: tumours fill a small part of a volume, which would cost steps to learn."""
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

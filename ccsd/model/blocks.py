"""Convolution blocks that can run several independent networks side by side.

With `groups=4` a block is four blocks of the same shape, one per modality, in one convolution: channel
`m * width + c` belongs to modality m and never sees another modality's channels.

Shapes: N batch (or batch x modality), C channels over all groups, D H W space.
"""

import copy
from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

CHANNELS_PER_NORM_GROUP = 8
SLOPE = 0.01
"""Negative slope of every leaky rectifier."""


class Norm(nn.GroupNorm):
    """Group normalisation whose groups never span two modalities; only scales and shifts maps of one voxel.

    Group instead of instance normalisation because it is several times faster on CPUs. A 1 x 1 x 1 map has no spatial
    statistics to normalise by; its scale and shift still apply, so that every parameter takes part in every step.
    """

    def __init__(self, channels: int, groups: int = 1) -> None:
        per_group = max(1, channels // groups // CHANNELS_PER_NORM_GROUP)
        super().__init__(groups * per_group, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise N x C x D x H x W."""
        if x[0, 0].numel() > 1:
            return self.in_its_own_type(x) if x.device.type == "cuda" else super().forward(x)
        return x * self.weight.view(1, -1, 1, 1, 1) + self.bias.view(1, -1, 1, 1, 1)

    def in_its_own_type(self, x: Tensor) -> Tensor:
        """Normalise on a GPU, where autocast would compute in float32 and hand that on: half as much memory again.

        The kernel adds up in float32 whatever it is given.
        """
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return functional.group_norm(x, self.num_groups, weight, bias, self.eps)


def mean_pool(x: Tensor, side: int) -> Tensor:
    """Return the means of cubes of `side` voxels.

    On GPUs by plain sums, for torch's pooling has no deterministic gradient there; on CPUs it is the faster one.
    """
    if x.device.type == "cpu":
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
        self.first = nn.Conv3d(wide_in, wide_out, 3, stride, padding=1, groups=groups, bias=False)
        self.first_norm = Norm(wide_out, groups)
        self.second = nn.Conv3d(wide_out, wide_out, 3, padding=1, groups=groups, bias=False)
        self.second_norm = Norm(wide_out, groups)
        self.stride = stride
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = nn.Conv3d(wide_in, wide_out, 1, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x D x H x W to N x C' x D/stride x H/stride x W/stride."""
        y = functional.leaky_relu(self.first_norm(self.first(x)), SLOPE)
        y = self.second_norm(self.second(y))
        if self.stride > 1:
            x = mean_pool(x, self.stride)
        if self.shortcut is not None:
            x = self.shortcut(x)
        return functional.leaky_relu(x + y, SLOPE)


class Stages(nn.ModuleList):
    """Modules that run one after another."""

    recompute = False
    """Keep only what goes from module to module, and compute the rest again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the last output."""
        return deque(self.outputs(x), maxlen=1).pop()

    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the output of each module."""
        for stage in self:
            again = self.recompute and torch.is_grad_enabled()
            x = checkpoint(stage, x, use_reentrant=False) if again else stage(x)
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

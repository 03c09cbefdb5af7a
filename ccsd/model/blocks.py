"""Convolution blocks that can hold several independent networks.

With `groups=4` a block is four blocks of the same shape, one per modality, in the same parameters: channel
`m * width + c` belongs to modality m and never sees another modality's channels.

Shapes: N batch (or batch x modality), C channels of all groups together, D H W space.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ccsd.model.layout import channels_last, folded, for_autocast, on_gpu, spread, unfolded
from ccsd.model.normalise import activated_norm

CHANNELS_PER_NORM_GROUP = 8
SLOPE = 0.01
"""Negative slope of every leaky rectifier."""


class Conv(nn.Conv3d):
    """A 3-D convolution of all groups; on GPUs, narrow groups are computed with neighbouring voxels as channels.

    GPUs are slow with groups and with few channels. The result is the same.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._move(self.kernel_size[2], self.stride, self.padding[2])

    def _move(self, size: int, stride: tuple[int, ...], padding: int | str) -> None:
        """Set how GPUs move the kernel."""
        self.moves = stride
        inputs, outputs = self.in_channels // self.groups, self.out_channels // self.groups
        self.taps = spread(size, stride[2], int(padding), inputs, outputs)  # no buffer, which DeepSpeed would save

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        if self.taps is not None:
            self.taps = fn(self.taps)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x D x H x W to N x C' x D/stride x H/stride x W/stride."""
        if not on_gpu(x):
            whole: Tensor = self._conv_forward(x, self.kernel(), self.bias)
            return whole
        if self.groups == 1:  # the gradient of a split into one part would be a copy
            return self._one(x, self.prepared(), self.bias)
        biases: Sequence[Tensor | None] = [None] * self.groups if self.bias is None else self.bias.chunk(self.groups)
        parts = zip(x.chunk(self.groups, 1), self.prepared().chunk(self.groups), biases, strict=True)
        return torch.cat([self._one(*part) for part in parts], 1)

    def _one(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride = self.moves
        if self.taps is None or x.shape[-1] % self.taps.shape[-1]:
            return functional.conv3d(channels_last(x), weight, bias, stride, self.padding, self.dilation)
        _, outputs, blocks, inputs = self.taps.shape
        # O x I x d x h x outputs x blocks x inputs, to the order in memory in which it is used.
        kernel = torch.tensordot(weight, self.taps.to(weight.dtype), 1).permute(4, 0, 2, 3, 5, 6, 1)
        kernel = kernel.flatten(0, 1).flatten(-2).movedim(-1, 1)
        bias = None if bias is None else bias.repeat(outputs)
        y = functional.conv3d(
            folded(x, inputs),
            kernel,
            bias,
            (*stride[:2], 1),
            (*self.padding[:2], blocks // 2),
        )
        return unfolded(y, outputs)

    def kernel(self) -> Tensor:
        """Return the kernel to convolve with."""
        return self.weight

    def prepared(self) -> Tensor:
        """Return the kernel that GPUs convolve with, in autocast's type and in the order in memory that is used."""
        return for_autocast(self.kernel(), torch.channels_last_3d if self.taps is None else torch.contiguous_format)


class MeanConv(Conv):
    """A 1 x 1 x 1 convolution of the means of cubes of `side` voxels.

    On GPUs it is one convolution: torch's pooling is slow there, and its gradient is not deterministic.
    """

    def __init__(self, in_channels: int, out_channels: int, side: int, groups: int) -> None:
        super().__init__(in_channels, out_channels, 1, groups=groups, bias=False)
        self._move(side, (side,) * 3, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x D x H x W to N x C' x D/side x H/side x W/side."""
        return super().forward(x if on_gpu(x) else mean_pool(x, self.moves[0]))

    def prepared(self) -> Tensor:
        """Return a kernel of cubes."""
        side = self.moves[0]
        return super().prepared().expand(-1, -1, side, side, side) / side**3


class Up(nn.ConvTranspose3d):
    """Doubles the resolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, 2)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:  # type: ignore[override]
        """Map N x C x D x H x W to N x C' x 2D x 2H x 2W, and add `shift` to the channels."""
        bias: Tensor = self.bias  # type: ignore[assignment]
        x = channels_last(x) if on_gpu(x) else x
        return functional.conv_transpose3d(x, self.weight, bias + shift, self.stride)


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
        """Normalise N x C x D x H x W, add something and rectify with a negative slope."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if x[0, 0].numel() == 1:
            y = x * weight.view(1, -1, 1, 1, 1) + bias.view(1, -1, 1, 1, 1)
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
        """Map N x C x D x H x W to N x C' x D/stride x H/stride x W/stride."""
        y = self.second(self.first_norm(self.first(x), slope=SLOPE))
        found: Tensor = self.second_norm(y, x if self.shortcut is None else self.shortcut(x), SLOPE)
        return found


class ConvBlock(nn.Module):
    """One 3 x 3 x 3 convolution, normalised and rectified; `in_channels` and `out_channels` are per group."""

    def __init__(self, in_channels: int, out_channels: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = Conv(in_channels * groups, out_channels * groups, 3, padding=1, groups=groups, bias=False)
        self.norm = Norm(out_channels * groups, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x D x H x W to N x C' x D x H x W."""
        found: Tensor = self.norm(self.conv(x), slope=SLOPE)
        return found


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


def one_group(module: nn.Module, groups: int) -> nn.Module:
    """Return a module like each of the groups of a network; its weights, on the meta device, are to be replaced.

    Those of its convolutions are taken as `prepared`.
    """
    copies: dict[int, Any] = {id(p): nn.Parameter(p.to("meta")) for p in module.parameters()}
    copies |= {id(layer.taps): layer.taps for layer in module.modules() if isinstance(layer, Conv)}
    one = select_groups(module, [0], groups, copies)
    for layer in one.modules():
        if isinstance(layer, Conv):
            layer.prepared = partial(getattr, layer, "weight")  # type: ignore[method-assign]
    return one


def select_groups(
    module: nn.Module, chosen: Sequence[int], groups: int, copies: dict[int, Any] | None = None
) -> nn.Module:
    """Return a copy of a grouped network that holds only the chosen groups.

    Every parameter's first axis is split into `groups` equal parts, of which those in `chosen` are kept, so the copy
    computes exactly those groups' outputs and costs only their share. `copies` has copies of tensors by their `id`.
    """
    part = copy.deepcopy(module, copies)
    for layer in part.modules():
        if isinstance(layer, nn.Conv3d):
            layer.groups = layer.groups // groups * len(chosen)
            layer.in_channels = layer.in_channels // groups * len(chosen)
            layer.out_channels = layer.out_channels // groups * len(chosen)
        elif isinstance(layer, nn.GroupNorm):
            layer.num_groups = layer.num_groups // groups * len(chosen)
            layer.num_channels = layer.num_channels // groups * len(chosen)
        for name, parameter in layer.named_parameters(recurse=False):
            parts = parameter.detach().chunk(groups)
            setattr(layer, name, nn.Parameter(torch.cat([parts[g] for g in chosen])))
    return part

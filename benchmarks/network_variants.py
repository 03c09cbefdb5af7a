"""Networks that `light` is compared with at equal time, as plugins, and what a step of each of them costs on a GPU.

    python benchmarks/network_variants.py

counts a step of `dropout` at the default size, under CUDA's rules (`counting.py`). config/networks.yaml compares the
networks, at a size for CPUs.

Shapes: K subsets, B batch, M modalities, C channels, R regions, D H W space.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from ccsd.config.method import Distillation, Model
from ccsd.model import SharedSpecificNet
from ccsd.model.blocks import Conv, ConvBlock, ResidualBlock, start_low
from ccsd.model.unet import Decoder, Encoder, light_channels
from preprocess.task import Task


class LightVariant(nn.Module):
    """`light` with other encoders or another decoder; it composes as all our networks do.

    Parameters
    ----------
    width, levels
        As in `model`.
    blocks
        Residual blocks per level below the full resolution; `light` has one.
    specific
        Channels of the specific encoders, as a share of the shared encoder's; `light` has one half.
    stride
        2 lets the encoders begin at half the resolution (space to depth); the decoder then ends with a light head at
        the full resolution, which sees no skip.
    """

    def __init__(
        self, task: Task, *, width: int, levels: int, blocks: int = 1, specific: float = 0.5, stride: int = 1
    ) -> None:
        super().__init__()
        modalities, regions = len(task.modalities), len(task.regions)
        self.net = SharedSpecificNet(Model(width=width, levels=levels), task)
        self.multiple = self.net.multiple
        finest, *widths = light_channels(width, levels)
        narrow = [*(max(1, int(w * specific)) for w in widths[:-1]), widths[-1]]
        self.net.specific = _encoder(
            ResidualBlock(1, narrow[0], stride=2, groups=modalities), narrow, blocks, modalities
        )
        if stride == 1:
            self.net.shared = _encoder(ConvBlock(1, finest), [finest, *widths], blocks)
            self.net.decoder = Decoder([finest, *widths], modalities, regions, deep=False, light=True)
        else:
            first = nn.Sequential(Conv(1, widths[0], 2, 2), ResidualBlock(widths[0], widths[0]))
            self.net.shared = _encoder(first, widths, blocks)
            self.net.decoder = _FromHalf(finest, widths, modalities, regions)
        for mix in self.net.decoder.modules():
            if isinstance(mix, Decoder):
                mix.mix = nn.ModuleList(_repeated(block, blocks) for block in mix.mix)

    def encode(self, image: Tensor, available: Tensor) -> Any:
        """Encode B x M x D x H x W."""
        return self.net.encode(image, available)

    def compose(self, features: Any, subsets: Tensor) -> Any:
        """Nothing is left to do before the decoder, which composes."""
        return features, subsets

    def decode(self, composed: Any) -> list[Tensor]:
        """Return logits, K x B x R x D x H x W."""
        found: list[Tensor] = self.net._decode_round(*composed)  # noqa: SLF001 - it is this network's own
        return found


class _FromHalf(nn.Module):
    """A decoder of features that begin at half the resolution, with a head of few channels at the full resolution."""

    def __init__(self, finest: int, widths: Sequence[int], modalities: int, regions: int) -> None:
        super().__init__()
        self.inner = Decoder(widths, modalities, regions, deep=False, light=False)
        self.inner.head = nn.Identity()  # type: ignore[assignment]
        self.up = nn.ConvTranspose3d(widths[0], finest, 2, 2)
        self.mix = ConvBlock(finest, finest)
        self.head = Conv(finest, regions, 1)
        self.coarse_head = nn.ConvTranspose3d(widths[0], regions, 2, 2, bias=False)
        start_low(self.head)

    def forward(self, *composed: Any) -> list[Tensor]:
        (features,) = self.inner(*composed)
        return [self.head(self.mix(self.up(features))) + self.coarse_head(features)]


def _encoder(first: nn.Module, widths: Sequence[int], blocks: int, groups: int = 1) -> Encoder:
    encoder = Encoder(first, widths, groups)
    for level, (_, width) in enumerate(pairwise(widths), start=1):
        more = (ResidualBlock(width, width, groups=groups) for _ in range(blocks - 1))
        encoder.levels[level] = nn.Sequential(encoder.levels[level], *more)
    return encoder


def _repeated(block: nn.Module, blocks: int) -> nn.Module:
    if not isinstance(block, ResidualBlock):
        return block
    width = block.first.in_channels
    return nn.Sequential(block, *(ResidualBlock(width, width) for _ in range(blocks - 1)))


class EarlyFusion(nn.Module):
    """MONAI's DynUNet, which takes the sequences as channels, 0 where one is missing; each level doubles `width`."""

    def __init__(self, task: Task, *, width: int, levels: int) -> None:
        from monai.networks.nets.dynunet import DynUNet

        super().__init__()
        kernels, strides = [3] * levels, [1] + [2] * (levels - 1)
        widths = [width * 2**level for level in range(levels)]
        self.net = DynUNet(3, len(task.modalities), len(task.regions), kernels, strides, strides[1:], filters=widths)
        del self.net.skip_layers  # holds the other layers once more, which checkpoints do not support
        self.multiple = (2 ** (levels - 1),) * 3

    def forward(self, image: Tensor, available: Tensor) -> Tensor:  # noqa: ARG002 - what is missing is 0 in the image
        """Return logits B x R x D x H x W."""
        skips, x = [], self.net.input_block(image)
        for down in (*self.net.downsamples, self.net.bottleneck):
            skips.append(x)
            x = down(x)
        for up in self.net.upsamples:
            x = up(x, skips.pop())
        logits: Tensor = self.net.output_block(x)
        return logits


def _plugin(name: str, **options: Any) -> dict[str, Any]:
    return {"backbone": f"network_variants:{name}", "options": {"levels": 5, **options}}


COUNTED = {
    "light": {},
    "unet": {"backbone": "unet"},
    "wider": {"width": 24},
    "widest": {"width": 32},
    "deep_supervision": {"deep_supervision": True},
    "two_blocks": _plugin("LightVariant", width=16, blocks=2),
    "specific_wide": _plugin("LightVariant", width=16, specific=1.0),
    "specific_narrow": _plugin("LightVariant", width=16, specific=0.25),
    "half_resolution": _plugin("LightVariant", width=16, stride=2),
    "dynunet": _plugin("EarlyFusion", width=16),
    "dynunet_wider": _plugin("EarlyFusion", width=32),
}
"""The networks of config/networks.yaml at the default size."""


def main() -> None:
    """Count a step of each network and print the table."""
    from counting import Step
    from measure import table

    rows = []
    for name, settings in COUNTED.items():
        step = Step(Model.model_validate(settings), Distillation(method="dropout"))
        moved, kernels = step.mean_traffic()
        rows.append((name, f"{step.tflop():.1f}", f"{moved / 1e9:.0f}", f"{kernels:.0f}", f"{step.peak_gib():.1f}"))
    print(table([("network", "TFLOP", "bf16, GB moved", "kernels", "bf16, GiB"), *rows]))


if __name__ == "__main__":
    main()

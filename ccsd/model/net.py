"""The shared-specific encoder-decoder: encode each modality once, compose any subsets of them, decode.

The architecture follows the paper's abstract and, where that is silent, the closest published networks;
docs/explanation/method.md says which is which.

Shapes: K subsets, B batch, M modalities, m encoded modalities, C channels, R regions, D H W space.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ccsd.config.method import Model
from ccsd.model import shaspec, unet
from ccsd.model.blocks import Conv, Stages, one_group, select_groups
from ccsd.model.compose import bottleneck_slots, of_modalities, select
from ccsd.model.layout import on_gpu
from ccsd.model.network import Network
from preprocess.task import Task


@dataclass(frozen=True)
class Features:
    """The features of each encoded modality, independent of any subset."""

    skips: list[Tensor]
    """Shared features of every level but the last, B x m x C_l x ..., finest first."""
    shared: Tensor
    """r: B x m x C x d x h x w."""
    fused: Tensor
    """f: B x m x C x d x h x w, r_m + C([r_m; s_m])."""
    pooled_specific: Tensor
    """Mean of s_m over space: B x m x C."""
    encoded: tuple[int, ...]
    """The modality index of each of the m entries."""


@dataclass(frozen=True)
class Backbone:
    """The parts that a network is made of; `ccsd.model.unet` describes their interface."""

    shared: Callable[[], nn.Module]
    specific: Callable[[], nn.Module]
    """The encoders of all modalities in one network, with one group for each."""
    decoder: Callable[[], nn.Module]
    width: int
    """Channels C of the bottleneck."""


def _unet(settings: Model, modalities: int, regions: int) -> Backbone:
    widths = unet.channels(settings.width, settings.levels)
    return Backbone(
        shared=lambda: unet.encoder(widths),
        specific=lambda: unet.encoder(widths, modalities),
        decoder=lambda: unet.Decoder(widths, modalities, regions, deep=settings.deep_supervision, light=False),
        width=widths[-1],
    )


def _light(settings: Model, modalities: int, regions: int) -> Backbone:
    widths = unet.light_channels(settings.width, settings.levels)
    return Backbone(
        shared=lambda: unet.light_encoder(widths),
        specific=lambda: unet.light_specific_encoder(widths, modalities),
        decoder=lambda: unet.Decoder(widths, modalities, regions, deep=settings.deep_supervision, light=True),
        width=widths[-1],
    )


def _shaspec(settings: Model, modalities: int, regions: int) -> Backbone:
    return Backbone(
        shared=lambda: shaspec.Encoder(1),
        specific=lambda: shaspec.Encoder(modalities),
        decoder=lambda: shaspec.Decoder(modalities, regions, deep=settings.deep_supervision),
        width=shaspec.BOTTLENECK,
    )


_BACKBONES = {"light": _light, "unet": _unet, "shaspec": _shaspec}


class SharedSpecificNet(Network):
    """One network for every combination of modalities.

    `encode` runs once per image whatever the number of subsets; `decode` costs one light decoder per subset.
    """

    is_random = False
    one_by_one = True
    """Whether GPUs compute the specific encoders one after another, which groups of convolutions would slow down."""

    def __init__(self, settings: Model, task: Task) -> None:
        super().__init__()
        modalities, regions = len(task.modalities), len(task.regions)
        self.all = tuple(range(modalities))
        self.multiple = settings.multiple
        backbone = _BACKBONES[settings.backbone](settings, modalities, regions)
        self.shared = backbone.shared()
        self.specific = backbone.specific()
        self.fuse = Conv(2 * backbone.width, backbone.width, 3, padding=1)
        self.decoder = backbone.decoder()
        self.classify = nn.Linear(backbone.width, modalities)
        self._parts: dict[tuple[int, ...], nn.Module] = {}

    def encode(self, image: Tensor, available: Tensor | None = None, encoded: Sequence[int] | None = None) -> Features:
        """Encode each of the modalities once; those that are not `encoded` cost nothing."""
        encoded = self.all if encoded is None else encoded
        if available is not None:
            image = torch.where(available[..., None, None, None], image, 0)
        if len(encoded) < len(self.all):
            image = select(image, 1, encoded)
        count = len(encoded)
        *skips, shared = self.shared(image.flatten(0, 1).unsqueeze(1))
        shared = shared.unflatten(0, (-1, count))
        specific = self.encode_specific(image, tuple(encoded))
        fused = shared + self.fuse(torch.cat([shared, specific], dim=2).flatten(0, 1)).unflatten(0, (-1, count))
        skips = [of_modalities(level, count) for level in skips]
        return Features(skips, shared, fused, specific.mean((-3, -2, -1)), tuple(encoded))

    def encode_specific(self, image: Tensor, encoded: tuple[int, ...]) -> Tensor:
        """Return the specific features of the encoded modalities, B x m x C x d x h x w, from B x m x D x H x W."""
        if not on_gpu(image) or not self.one_by_one or torch.compiler.is_compiling():
            found: Tensor = self._specific_encoder(encoded)(image)[-1].unflatten(1, (len(encoded), -1))
            return found
        weights: dict[str, Tensor] = dict(self.specific.named_parameters())
        # Once for all of them, which takes fewer operations.
        weights |= {f"{n}.weight": m.prepared() for n, m in self.specific.named_modules() if isinstance(m, Conv)}
        parts = {name: weight.chunk(len(self.all)) for name, weight in weights.items()}
        each = []
        for modality, one in zip(encoded, image.chunk(len(encoded), 1), strict=True):
            own = {name: part[modality] for name, part in parts.items()}
            each.append(functional_call(self._one_encoder, own, (one,))[-1])
        return torch.stack(each, 1)

    def recompute_encoders(self) -> None:
        """From now on, keep only the outputs of the encoders' stages, and recompute the rest in the backward pass."""
        self.one_by_one = False  # the recomputation needs encoders that hold their weights
        for module in self.modules():
            if isinstance(module, Stages):
                module.recompute = True

    def _decode_round(self, features: Features, subsets: Tensor) -> list[Tensor]:
        subsets = subsets.transpose(0, 1)
        slots = bottleneck_slots(features.fused, features.shared, subsets, features.encoded)
        levels = self.decoder(slots, features.skips, subsets, features.encoded)
        return [level.unflatten(0, subsets.shape[:2]).transpose(0, 1) for level in levels]

    def _specific_encoder(self, encoded: tuple[int, ...]) -> nn.Module:
        if encoded == self.all:
            return self.specific
        if encoded not in self._parts:
            self._parts[encoded] = select_groups(self.specific, encoded, len(self.all))
        return self._parts[encoded]

    @cached_property
    def _one_encoder(self) -> nn.Module:
        """A specific encoder without weights, to be called with prepared ones."""
        return one_group(self.specific, len(self.all))

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; drop the partial encoders, whose weights would become stale."""
        self._parts.clear()
        return super().train(mode)

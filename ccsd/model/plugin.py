"""Networks of plugins, as objectives and inference see every network; and the one door through which networks come.

Shapes: K subsets, B batch, M modalities, R regions, D H W space.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ccsd.config.method import Model
from ccsd.errors import UsageError
from ccsd.model.net import SharedSpecificNet
from ccsd.model.network import Network
from ccsd.plugins.find import BACKBONE, find, is_plugin
from preprocess.task import Task

COMPOSES = ("encode", "compose", "decode")
"""The methods of a network that composes."""
KEEPS_TO = "ccsd.plugins.interface and docs/plugins.md say what a network keeps to; `ccsd check-plugin` tests it"


class PluginNetwork(Network):
    """What both kinds share: the author's module under `network`, and a check of what it returns."""

    def __init__(self, name: str, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.name, self.network, self.regions = name, network, len(task.regions)
        self.multiple = _multiple(name, network)

    def encode(self, image: Tensor, available: Tensor | None = None, encoded: Sequence[int] | None = None) -> Any:
        """Encode what is available, or what is to be encoded; the rest is 0 for the author's module."""
        if available is None:
            row = [encoded is None or number in encoded for number in range(image.shape[1])]
            available = torch.tensor(row, device=image.device).expand(len(image), -1)
        return self._encode(torch.where(available[..., None, None, None], image, 0), available)

    def _encode(self, image: Tensor, available: Tensor) -> Any:
        raise NotImplementedError

    def _levels(self, found: Any, expected: tuple[int, ...]) -> list[Tensor]:
        """Return the logits as a list, the finest first, after a look at its shape."""
        levels = [found] if isinstance(found, Tensor) else found
        if not isinstance(levels, list | tuple) or not levels or not all(isinstance(z, Tensor) for z in levels):
            raise UsageError(
                f"model.backbone={self.name}: returned {type(found).__name__}, expected logits or a list of logits, "
                f"the finest first; {KEEPS_TO}"
            )
        shape = tuple(levels[0].shape)
        if shape != expected:
            raise UsageError(
                f"model.backbone={self.name}: returned logits of {_by(shape)}, expected {_by(expected)}; {KEEPS_TO}"
            )
        return [*levels] if self.training else [levels[0]]


class ComposingNetwork(PluginNetwork):
    """A `ccsd.plugins.interface.ComposingBackbone`."""

    def _encode(self, image: Tensor, available: Tensor) -> Any:
        return image.shape[-3:], self.network.encode(image, available)  # type: ignore[operator]

    def _decode_round(self, features: Any, subsets: Tensor) -> list[Tensor]:
        space, own = features
        found = self.network.decode(self.network.compose(own, subsets))  # type: ignore[operator]
        return self._levels(found, (*subsets.shape[:2], self.regions, *space))


class WholeNetwork(PluginNetwork):
    """A `ccsd.plugins.interface.AnyNetwork`: its features are the image, and a subset is a whole pass."""

    composes = False

    def _encode(self, image: Tensor, available: Tensor) -> Any:  # noqa: ARG002 - each subset says what it shows
        return image

    def _decode_round(self, features: Any, subsets: Tensor) -> list[Tensor]:
        shown = torch.where(subsets[..., None, None, None], features, 0).flatten(0, 1)
        found = self._levels(self.network(shown, subsets.flatten(0, 1)), (len(shown), self.regions, *shown.shape[-3:]))
        return [torch.unflatten(level, 0, subsets.shape[:2]) for level in found]


def build_network(settings: Model, task: Task) -> Network:
    """Return a new network with the initial weights that torch's seed gives.

    Raises
    ------
    UsageError
        If it is a plugin's that cannot be found or built, or does not keep to the interface.
    """
    name = settings.backbone
    if not is_plugin(BACKBONE, name):
        return SharedSpecificNet(settings, task)
    network = find(BACKBONE, name).build(task, settings.options)
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"model.backbone={name}: its factory returned {type(network).__name__}, expected a torch.nn.Module; "
            f"{KEEPS_TO}"
        )
    still = [own for own, parameter in network.named_parameters() if not parameter.requires_grad]
    if still:
        raise UsageError(
            f"model.backbone={name}: {', '.join(still[:3])} are parameters that do not learn, for which ZeRO and "
            "checkpoints have no place; register them as buffers"
        )
    has = [method for method in COMPOSES if callable(getattr(network, method, None))]
    if has and len(has) < len(COMPOSES):
        missing = ", ".join(method for method in COMPOSES if method not in has)
        raise UsageError(f"model.backbone={name}: has {', '.join(has)} but not {missing}; {KEEPS_TO}")
    return (ComposingNetwork if has else WholeNetwork)(name, network, task)


def refuse_patch(network: Network, patch: Sequence[int]) -> None:
    """Raise a UsageError if a patch does not fit a network; that of ours is known to the configuration."""
    if any(side % unit for side, unit in zip(patch, network.multiple, strict=True)):
        raise UsageError(
            f"train.patch {list(patch)} does not fit the network: depth, height and width must be multiples of "
            f"{', '.join(map(str, network.multiple))}"
        )


def _multiple(name: str, network: nn.Module) -> tuple[int, int, int]:
    multiple = getattr(network, "multiple", None)
    if isinstance(multiple, list | tuple) and [type(side) for side in multiple] == [int] * 3 and min(multiple) > 0:
        depth, height, width = multiple
        return depth, height, width
    raise UsageError(
        f"model.backbone={name}: its attribute `multiple` is {multiple!r}, expected three whole numbers, of which "
        f"depth, height and width of an input must be multiples, such as (8, 8, 8); {KEEPS_TO}"
    )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))

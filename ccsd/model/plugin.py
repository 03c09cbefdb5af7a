"""Give the networks of plugins the interface of every network, and build all networks.

Shapes: K subsets, B batch, M modalities, R regions, D H W space.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ccsd.config.method import Model
from ccsd.errors import UsageError
from ccsd.model.net import SharedSpecificNet
from ccsd.model.network import Network
from ccsd.plugins.find import BACKBONE, find, is_plugin
from preprocess.task import Task

COMPOSES = ("encode", "compose", "decode")
"""The methods of a network that composes."""
RULES = "ccsd.plugins.interface and docs/how-to/plugins.md have the rules for networks; `ccsd check-plugin` tests them"


class PluginNetwork(Network):
    """Base of both kinds: the author's module under `network`, and a check of what it returns."""

    def __init__(self, name: str, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.name, self.network, self.regions = name, network, len(task.regions)
        self.multiple = _multiple(name, network)

    def encode(self, image: Tensor, available: Tensor | None = None, encoded: Sequence[int] | None = None) -> Any:
        """Encode what is available, or what is to be encoded; the author's module gets 0 for the rest."""
        if available is None:
            row = [encoded is None or number in encoded for number in range(image.shape[1])]
            available = torch.tensor(row, device=image.device).expand(len(image), -1)
        return self._encode(torch.where(available[..., None, None, None], image, 0), available)

    def _encode(self, image: Tensor, available: Tensor) -> Any:
        raise NotImplementedError

    def _levels(self, found: Any, expected: tuple[int, ...]) -> list[Tensor]:
        """Return the logits as a list, the finest first, after checking their shapes."""
        levels = [found] if isinstance(found, Tensor) else found
        if not isinstance(levels, list | tuple) or not levels or not all(isinstance(z, Tensor) for z in levels):
            raise UsageError(
                f"model.backbone={self.name}: returned {type(found).__name__}, expected logits or a list of logits, "
                f"the finest first; {RULES}"
            )
        levels = levels if self.training else levels[:1]
        for number, level in enumerate(levels):
            whole, shape = expected[:-3], tuple(level.shape)
            if shape != (expected if number == 0 else (*whole, *shape[-3:])) or len(shape) != len(expected):
                size = _by(expected) if number == 0 else f"{_by(whole)} x a coarser size, the finest logits first"
                which = "logits" if number == 0 else f"coarser logits (number {number + 1} of {len(levels)})"
                raise UsageError(
                    f"model.backbone={self.name}: returned {which} of {_by(shape)}, expected {size}; {RULES}"
                )
        return [*levels]


class ComposingNetwork(PluginNetwork):
    """A `ccsd.plugins.interface.ComposingBackbone`."""

    def _encode(self, image: Tensor, available: Tensor) -> Any:
        return image.shape[-3:], self.network.encode(image, available)  # type: ignore[operator]

    def _decode_round(self, features: Any, subsets: Tensor) -> list[Tensor]:
        space, own = features
        found = self.network.decode(self.network.compose(own, subsets))  # type: ignore[operator]
        return self._levels(found, (*subsets.shape[:2], self.regions, *space))


class WholeNetwork(PluginNetwork):
    """A `ccsd.plugins.interface.AnyNetwork`: its features are the image, and a subset takes a whole pass."""

    composes = False

    def _encode(self, image: Tensor, available: Tensor) -> Any:  # noqa: ARG002 - each subset says what it shows
        return image

    def _decode_round(self, features: Any, subsets: Tensor) -> list[Tensor]:
        shown = torch.where(subsets[..., None, None, None], features, 0).flatten(0, 1)
        found = self._levels(self.network(shown, subsets.flatten(0, 1)), (len(shown), self.regions, *shown.shape[-3:]))
        return [torch.unflatten(level, 0, subsets.shape[:2]) for level in found]


def build_network(settings: Model, task: Task) -> Network:
    """Return a new network, initialised from torch's seed.

    Raises
    ------
    UsageError
        If it is a plugin that cannot be found or built, or does not follow the interface.
    """
    name = settings.backbone
    if not is_plugin(BACKBONE, name):
        return SharedSpecificNet(settings, task)
    network = find(BACKBONE, name).build(task, settings.options)
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"model.backbone={name}: its factory returned {type(network).__name__}, expected a torch.nn.Module; {RULES}"
        )
    _reject_weights(name, network)
    has = [method for method in COMPOSES if callable(getattr(network, method, None))]
    if has and len(has) < len(COMPOSES):
        missing = ", ".join(method for method in COMPOSES if method not in has)
        raise UsageError(f"model.backbone={name}: has {', '.join(has)} but not {missing}; {RULES}")
    return (ComposingNetwork if has else WholeNetwork)(name, network, task)


def _reject_weights(name: str, network: nn.Module) -> None:
    """Raise a UsageError for weights that ZeRO or checkpoints cannot handle."""
    every = dict(network.named_parameters(remove_duplicate=False))
    if lazy := [own for own, parameter in every.items() if is_lazy(parameter)]:
        raise UsageError(
            f"model.backbone={name}: {', '.join(lazy[:3])} have no size yet, which the optimizer and the saved weights "
            "need; give lazy layers their channels, or run the network once in the factory"
        )
    first: dict[int, str] = {}
    if tied := [(own, first[id(p)]) for own, p in every.items() if first.setdefault(id(p), own) != own]:
        raise UsageError(
            f"model.backbone={name}: {' is '.join(tied[0])} under another name, but checkpoints hold each weight once; "
            "register a shared module only once, and call it where it is needed"
        )
    still = [own for own, parameter in network.named_parameters() if not parameter.requires_grad]
    if still:
        raise UsageError(
            f"model.backbone={name}: {', '.join(still[:3])} are parameters that do not learn, which ZeRO and "
            "checkpoints do not support; register them as buffers"
        )


def reject_patch(network: Network, patch: Sequence[int]) -> None:
    """Raise a UsageError if a patch does not fit a network; for ours, the configuration checks this."""
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
        f"depth, height and width of an input must be multiples, such as (8, 8, 8); {RULES}"
    )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))

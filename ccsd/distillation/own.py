"""Train with a plugin objective, and choose between it and our methods.

Shapes: B batch, M modalities, D H W space.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ccsd.config.schema import Config
from ccsd.distillation.losses import region_targets
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import Draw
from ccsd.errors import UsageError
from ccsd.model.network import Network
from ccsd.model.plugin import PluginNetwork, build_network, reject_patch
from ccsd.plugins.find import OBJECTIVE, find, is_plugin
from ccsd.plugins.interface import Step
from ccsd.precision import autocast
from ccsd.randomness import Stream, generator
from preprocess.task import Task

WITHOUT_COMPOSING = ("full", "dropout")
"""Those of our methods that work with networks that do not compose."""
RULES = (
    "ccsd.plugins.interface and docs/how-to/plugins.md have the rules for objectives; `ccsd check-plugin` tests them"
)


class PluginObjective(nn.Module):
    """A network together with a `ccsd.plugins.interface.OwnObjective`; called like `Objective`."""

    def __init__(self, name: str, net: Network, objective: Callable[..., Any], task: Task, precision: str) -> None:
        super().__init__()
        self.name, self.net, self.objective, self.task, self.precision = name, net, objective, task, precision
        self._terms: set[str] | None = None

    def forward(self, image: Tensor, label: Tensor, available: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Return the loss and the terms, and no order of removal."""
        step = Step(
            image=torch.where(available[..., None, None, None], image, 0),
            target=region_targets(label, self.task),
            available=available,
            number=draw.step,
            total=draw.total_steps,
            generators=tuple(generator(Stream.PLUGIN, draw.seed, draw.step, sample) for sample in draw.samples),
        )
        seed_layers(draw)
        with autocast(self.precision, image.device):
            found = self.objective(self.net, step)
        loss, terms = self._checked(found)
        return {"loss": loss, **terms, "removed": available.new_zeros((0, len(available)), dtype=torch.long)}

    def _checked(self, found: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):  # noqa: PLR2004
            raise self._error(f"returned {type(found).__name__}, expected the loss and a mapping of named terms")
        loss, terms = found[0], dict(found[1])
        for name, value in {"the loss": loss, **terms}.items():
            if not isinstance(value, Tensor) or value.numel() != 1:
                shape = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise self._error(f"{name} has {shape}, expected a scalar tensor")
        if taken := {"loss", "removed", "scored"} & set(terms):
            raise self._error(f"a term is called {', '.join(sorted(taken))}, which is reserved; use another name")
        if self._terms not in (None, set(terms)):
            raise self._error(
                f"its terms are {', '.join(sorted(terms))}, but were {', '.join(sorted(self._terms or ()))} in an "
                "earlier step; return the same names in every step, with 0 where there is nothing"
            )
        self._terms = set(terms)
        return loss.reshape(()), {name: value.reshape(()) for name, value in terms.items()}

    def _error(self, text: str) -> UsageError:
        return UsageError(f"distillation.method={self.name}: {text}; {RULES}")


class WithPluginNetwork(Objective):
    """Our methods with the network of a plugin, whose layers may draw random numbers."""

    def forward(self, image: Tensor, label: Tensor, available: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Return what `Objective` does."""
        seed_layers(draw)
        return super().forward(image, label, available, draw)


def seed_layers(draw: Draw) -> None:
    """Seed torch by the step and the first sample, so that a resumed run draws the same as an uninterrupted one."""
    rng = generator(Stream.LAYERS, draw.seed, draw.step, draw.samples[0] if draw.samples else 0)
    torch.manual_seed(int(rng.integers(2**63)))


def build_objective(config: Config) -> Objective | PluginObjective:
    """Return a new network together with its objective.

    Raises
    ------
    UsageError
        If a plugin cannot be used, or network, method and settings do not fit together.
    """
    network, method = build_network(config.model, config.task), config.distillation.method
    reject_patch(network, config.train.patch)
    if isinstance(network, PluginNetwork):
        _reject_for_plugins(config, network)
    if is_plugin(OBJECTIVE, method):
        if config.runtime.compile:
            raise UsageError(f"runtime.compile compiles our methods, not {method}; use runtime.compile=false")
        own = find(OBJECTIVE, method).build(config.task, config.distillation.options)
        if not callable(own):
            raise UsageError(
                f"distillation.method={method}: its factory returned {type(own).__name__}, which cannot be called; "
                f"{RULES}"
            )
        return PluginObjective(method, network, own, config.task, config.train.precision)
    kind = WithPluginNetwork if isinstance(network, PluginNetwork) else Objective
    return kind(
        network,
        config.distillation,
        config.task,
        decode_batch=config.runtime.decode_batch,
        precision=config.train.precision,
    )


def _reject_for_plugins(config: Config, network: PluginNetwork) -> None:
    name, method = network.name, config.distillation.method
    if not network.composes and not is_plugin(OBJECTIVE, method) and method not in WITHOUT_COMPOSING:
        raise UsageError(
            f"distillation.method={method} compares many sets of sequences in a step, for which a network encodes once "
            f"and composes each set; model.backbone={name} has no encode, compose and decode, so each set would "
            "need a whole pass. Use distillation.method=dropout or full, or your own objective, or add these three "
            "methods to the network (docs/how-to/plugins.md)"
        )
    for key, given in (
        ("runtime.compile", config.runtime.compile),
        ("runtime.activation_checkpointing", config.runtime.activation_checkpointing),
        ("train.freeze", config.train.freeze > 0),
    ):
        if given:
            raise UsageError(
                f"{key} acts on parts of our own networks, which model.backbone={name} does not have; remove {key}"
            )

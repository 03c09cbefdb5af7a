"""Test whether a plugin keeps the rules that training, inference and ZeRO rely on; authors can run this."""

from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ccsd.config import Config
from ccsd.config.load import parse_override, set_key, validate_config
from ccsd.errors import UsageError
from ccsd.model import build_network
from ccsd.plugins.check_network import NetworkChecks, patch_for
from ccsd.plugins.check_objective import ObjectiveChecks
from ccsd.plugins.check_training import TrainingChecks
from ccsd.plugins.find import BACKBONE, KINDS, OBJECTIVE, Kind, find, offered
from ccsd.plugins.outcome import Check, Outcome, outcome_of

TRAIN = {"batch_size": 2, "precision": "fp32", "learning_rate": 2e-3, "select": "last"}
RUNTIME = {"workers": 0, "sinks": [], "micro_batch": 1}
"""Micro-batches of one sample, also for one process: layers that draw then draw the same as on two processes."""
UNIT = 20
"""The number of steps is a multiple of this: every tenth is logged, and a run resumes from half of them."""


def kind_of(name: str, *, objective: bool) -> Kind:
    """Return whether a name is that of a backbone or of an objective.

    Raises
    ------
    UsageError
        If there is no such entry point.
    """
    if objective:
        return OBJECTIVE
    if ":" in name:
        return BACKBONE
    for kind in KINDS:
        if any(point.name == name for point in metadata.entry_points(group=kind.group)):
            return kind
    raise UsageError(f"{name}: no backbone or objective has this name. Backbones: {offered(BACKBONE)}. "
                     f"Objectives: {offered(OBJECTIVE)}")  # fmt: skip


def config_for(kind: Kind, name: str, overrides: Sequence[str], steps: int) -> Config:
    """Return the configuration that a plugin is tested with: a small one, changed by `KEY=VALUE`.

    Raises
    ------
    UsageError
        If it is invalid, or the plugin is not found.
    """
    if steps % UNIT or steps <= 0:
        raise UsageError(f"--steps {steps}: use a multiple of {UNIT}")
    find(kind, name)
    raw: dict[str, Any] = {"name": "check", "phantom": {}, "train": dict(TRAIN), "runtime": dict(RUNTIME)}
    if kind is BACKBONE:
        raw |= {"model": {"backbone": name}, "distillation": {"method": "dropout"}}
    else:
        raw |= {"model": {"width": 4, "levels": 3}, "distillation": {"method": name}}
    raw["train"] |= {"steps": steps, "validate_every": steps, "patch": [32, 32, 32]}
    raw["runtime"] |= {"checkpoint_every": steps // 2, "keep_last": 2}
    for override in overrides:
        set_key(raw, *parse_override(override))
    config = validate_config(raw, "check-plugin")
    if not any(override.startswith("train.patch") for override in overrides):
        patch = patch_for(build_network(config.model, config.task).multiple)
        config = config.model_copy(update={"train": config.train.model_copy(update={"patch": patch})})
    return config


def run_checks(kind: Kind, config: Config, folder: Path, without_gradient: Sequence[str] = ()) -> Iterator[Outcome]:
    """Run the checks one after the other; skip the rest if the first check, or the first training, fails.

    Parameters
    ----------
    folder
        Folder for phantoms and runs; the caller removes it.
    without_gradient
        Prefixes of the names of weights that need no gradient.
    """
    start = tuple(without_gradient)
    checks = NetworkChecks(config, start).all() if kind is BACKBONE else ObjectiveChecks(config, start).all()
    for number, (name, check) in enumerate(checks.items()):
        yield (outcome := outcome_of(name, check))
        if number == 0 and not outcome.passed:  # its result is unusable: all others would report the same
            return
    yield from _in_order(TrainingChecks(config, folder).all())


def _in_order(checks: dict[str, Check]) -> Iterator[Outcome]:
    trained = True
    for name, check in checks.items():
        if trained:
            outcome = outcome_of(name, check)
            trained = name != "learns" or outcome.passed or "loss" in outcome.expected
            yield outcome

"""From YAML and `KEY=VALUE` options to a validated configuration."""

import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from ccsd.config.schema import Config, Evaluation
from ccsd.errors import UsageError

YAML_ERRORS = (yaml.YAMLError, AttributeError, LookupError, RecursionError, ValueError)
"""What `read_yaml` raises for a text that it refuses; PyYAML has no word of its own for `2024-13-45` or `!!int ""`."""

_MOST_KEYS = 10_000


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> Any:
        """Refuse a key that is given twice, of which PyYAML takes the last without a word."""
        node = super().compose_mapping_node(anchor)
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [key for key, number in counts.items() if number > 1]
        if twice:
            raise ComposerError("in a mapping", node.start_mark, f"{', '.join(twice[:5])}: given twice", node.end_mark)
        return node

    def flatten_mapping(self, node: Any) -> None:
        """Merge `<<` keys, a limited number: a few lines can ask for billions."""
        super().flatten_mapping(node)
        if len(node.value) > _MOST_KEYS:
            raise ConstructorError("in a mapping", node.start_mark, f"more than {_MOST_KEYS} keys", node.end_mark)


def read_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises
    ------
    YAML_ERRORS
        If it is not valid, has a key twice, or is nested or merged without bounds.
    """
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader, which makes plain values only


_SHOWN = 30
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def load_config(path: Path, overrides: Iterable[str] = (), experiment: str | None = None) -> Config:
    """Read a YAML file, apply an experiment's settings and then `KEY=VALUE` overrides, and validate the result.

    Parameters
    ----------
    path
        YAML file with the keys of `Config`.
    overrides
        Dotted keys with YAML values, e.g. `train.steps=100`; they win over the experiment.
    experiment
        Name of an entry of `experiments` whose settings are merged in.

    Raises
    ------
    UsageError
        If the file cannot be read, is not a mapping, or has unknown or wrong values; every problem is listed.
    """
    raw = _read_yaml(path)
    if experiment is not None:
        for key, value in _experiment_settings(validate(raw, path), experiment, path).items():
            set_key(raw, key, value)
    for override in overrides:
        key, value = parse_override(override)
        set_key(raw, key, value)
    return validate(raw, path)


def parse_override(text: str) -> tuple[str, Any]:
    """Split `train.steps=100` into the dotted key and its YAML value."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise UsageError(f"--set {text!r}: expected KEY=VALUE, for example train.steps=100")
    try:
        return key.strip(), read_yaml(value)
    except YAML_ERRORS:
        raise UsageError(f"--set {text!r}: the value is not valid YAML; quote it") from None


def set_key(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested mappings, in place, creating the sections on the way."""
    *sections, last = key.split(".")
    node = raw
    for section in sections:
        child = node.get(section)
        if not isinstance(child, dict):
            child = node[section] = {}
        node = child
    node[last] = value


def validate(raw: Any, origin: Path | str) -> Config:
    """Validate nested mappings; `origin` is named in the message when something is wrong."""
    if not isinstance(raw, Mapping):
        raise UsageError(f"{origin}: expected a mapping of settings; see config/config.yaml for an example")
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        found = [_problem(item) for item in error.errors(include_url=False)]
        more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        problems = "\n".join(found[:_SHOWN])
        raise UsageError(f"{origin}: the configuration cannot be used:\n{problems}{more}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the configuration: {error.strerror}") from None
    except YAML_ERRORS as error:
        raise UsageError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{path}: expected a mapping of settings; see config/config.yaml for an example")
    return raw


def _experiment_settings(config: Config, name: str, origin: Path) -> dict[str, Any]:
    if name not in config.experiments:
        raise UsageError(f"{origin}: no experiment {name!r}; allowed: {', '.join(config.experiments)}")
    return dict(config.experiments[name])


def _problem(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "(top level)"
    if item["type"] == "extra_forbidden":
        return f"  {where}: unknown key; allowed here: {', '.join(_siblings(item['loc']))}"
    got = f" (got {_SHORT.repr(item['input'])})" if item["loc"] else ""  # whole, a file's aliases could fill the memory
    return f"  {where}: {item['msg']}{got}"


def _siblings(location: tuple[str | int, ...]) -> list[str]:
    """Return the keys that are allowed where `location` was refused."""
    model: type[BaseModel] = Config
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        candidates = (annotation, *getattr(annotation, "__args__", ()))
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)


def evaluation_settings(config: Config | None, overrides: Sequence[str]) -> Evaluation:
    """Return a run's evaluation settings, or the defaults without one, with `evaluation.KEY=VALUE` applied."""
    base = config or Config.model_validate({"name": "defaults", "phantom": {}})
    raw = base.model_dump(mode="json")
    for text in overrides:
        key, value = parse_override(text)
        if not key.startswith("evaluation."):
            allowed = ", ".join(f"evaluation.{name}" for name in Evaluation.model_fields)
            raise UsageError(f"--set {text}: only settings of the evaluation can be set here; allowed: {allowed}")
        set_key(raw, key, value)
    return validate(raw, "--set").evaluation

"""From YAML and `KEY=VALUE` options to a validated configuration."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ccsd.config.schema import Config, Evaluation
from ccsd.config.section import Section
from ccsd.errors import UsageError
from ccsd.plugins.find import BACKBONE, OBJECTIVE, Plugin, find, is_plugin
from preprocess.errors import InputError, first_few
from preprocess.reading import YAML_ERRORS, read_mapping, read_yaml
from preprocess.task import Task

_EXPECTED = "a mapping of settings; see config/config.yaml for an example"
_RENAMED = {"min_enhancing": "evaluation.cleanup (true or false; the limits are those of the task)"}
"""Keys of earlier versions -> what replaces them."""
_Model = TypeVar("_Model", bound=Section)


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
        for key, value in _experiment_settings(validate_config(raw, path), experiment, path).items():
            set_key(raw, key, value)
    for override in overrides:
        key, value = parse_override(override)
        set_key(raw, key, value)
    return validate_config(raw, path)


def parse_override(text: str) -> tuple[str, Any]:
    """Split `train.steps=100` into the dotted key and its YAML value."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise UsageError(f"--set {text!r}: expected KEY=VALUE, for example train.steps=100")
    if not value.strip():  # for example a shell variable that is not set
        raise UsageError(f"--set {text!r}: the value is missing; give one, or null for none")
    try:
        return key.strip(), read_yaml(value)
    except YAML_ERRORS:
        raise UsageError(f"--set {text!r}: the value is not valid YAML; quote it") from None


def set_key(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested mappings in place, creating sections as needed."""
    *sections, last = key.split(".")
    node = raw
    for section in sections:
        child = node.get(section)
        if not isinstance(child, dict):
            child = node[section] = {}
        node = child
    node[last] = value


def validate_config(raw: Any, origin: Path | str, *, unknown: Literal["forbid", "ignore"] = "forbid") -> Config:
    """Validate nested mappings; error messages name `origin`."""
    if not isinstance(raw, Mapping):
        raise UsageError(f"{origin}: expected {_EXPECTED}")
    config = _validated(Config, dict(raw), origin, unknown)
    if unknown == "forbid":  # a record may be read where the plugin is not installed
        _reject_missing_plugins(config, origin)
    return config


def plugins_of(config: Config) -> list[Plugin]:
    """Return the plugins that a configuration names.

    Raises
    ------
    UsageError
        If one cannot be found.
    """
    named = ((BACKBONE, config.model.backbone), (OBJECTIVE, config.distillation.method))
    return [find(kind, name) for kind, name in named if is_plugin(kind, name)]


def plugins_in_words(config: Config) -> tuple[str, ...]:
    """Return the plugins that a configuration names, with their versions, for messages."""
    return tuple(str(plugin.record) for plugin in plugins_of(config))


def _reject_missing_plugins(config: Config, origin: Path | str) -> None:
    try:
        plugins_of(config)
    except UsageError as error:
        raise UsageError(f"{origin}: the configuration cannot be used:\n  {error}") from None


def _validated(
    model: type[_Model], raw: dict[str, Any], origin: Path | str, unknown: Literal["forbid", "ignore"] = "forbid"
) -> _Model:
    try:
        return model.model_validate(raw, extra=unknown)
    except ValidationError as error:
        found = [_problem(item, model) for item in error.errors(include_url=False)]
        problems = first_few(found, 30, "\n")
        raise UsageError(f"{origin}: the configuration cannot be used:\n{problems}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path, "configuration", _EXPECTED)
    except InputError as error:
        raise UsageError(str(error)) from None


def _experiment_settings(config: Config, name: str, origin: Path) -> dict[str, Any]:
    if name not in config.experiments:
        raise UsageError(f"{origin}: no experiment {name!r}; allowed: {', '.join(config.experiments)}")
    return dict(config.experiments[name])


def _problem(item: Any, model: type[Section]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "(top level)"
    if item["type"] == "extra_forbidden":
        if new := _RENAMED.get(str(item["loc"][-1])):
            return f"  {where}: replaced by {new}"
        if elsewhere := _sections_with(str(item["loc"][-1]), model):
            return f"  {where}: unknown key; use {' or '.join(elsewhere)}"
        return f"  {where}: unknown key; allowed here: {', '.join(_siblings(item['loc'], model))}"
    got = f" (got {item['input']!r:.80})" if item["loc"] else ""
    return f"  {where}: {item['msg']}{got}"


def _sections_with(key: str, model: type[Section]) -> list[str]:
    """Return the dotted names of a key in the sections that have it."""
    return [
        f"{name}.{key}"
        for name, field in model.model_fields.items()
        if isinstance(field.default, BaseModel) and key in type(field.default).model_fields
    ]


def _siblings(location: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    """Return the keys that are allowed at `location`, which was rejected."""
    kind: Any = model
    for part in location[:-1]:
        named = get_origin(kind) is dict  # this part is a name chosen by the user
        kind = get_args(kind)[1] if named else _model_in(kind).model_fields[str(part)].annotation
    return list(_model_in(kind).model_fields)


def _model_in(kind: Any) -> type[BaseModel]:
    """Return the model that a type of value is, or may be."""
    return next(c for c in (kind, *get_args(kind)) if isinstance(c, type) and issubclass(c, BaseModel))


def evaluation_settings(base: Evaluation, overrides: Sequence[str], task: Task) -> Evaluation:
    """Return evaluation settings with `evaluation.KEY=VALUE` applied.

    Raises
    ------
    UsageError
        If a setting cannot be used, or names a sequence that the task does not have.
    """
    raw = {"evaluation": base.model_dump(mode="json")}
    for text in overrides:
        key, value = parse_override(text)
        if not key.startswith("evaluation."):
            allowed = ", ".join(f"evaluation.{name}" for name in Evaluation.model_fields)
            raise UsageError(f"--set {text}: only settings of the evaluation can be set here; allowed: {allowed}")
        set_key(raw, key, value)
    settings = _validated(_EvaluationOnly, raw, "--set").evaluation
    try:
        return settings.of(task)
    except ValueError as error:
        raise UsageError(f"--set evaluation.{error}") from None


class _EvaluationOnly(Section):
    evaluation: Evaluation

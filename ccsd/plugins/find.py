"""Find the factory of a network or an objective by name: ours, an entry point, or `package.module:factory`.

This needs no torch and imports the plugin only when it is built, because the workflow checks here whether it exists.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

from ccsd.errors import UsageError
from preprocess.task import Task

BuiltInBackbone = Literal["light", "unet", "shaspec"]
Method = Literal["full", "dropout", "hmsd", "dmcd", "ccsd"]
NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z_][A-Za-z0-9_.]*)?$"
"""The name of an entry point, or of a module and an object in it."""
WHERE = (
    "a module must be installed (`pip install`), or its folder must be on PYTHONPATH wherever the study runs: "
    "`export PYTHONPATH=FOLDER` before the command; its jobs inherit it"
)


@dataclass(frozen=True)
class Kind:
    """What a plugin replaces."""

    noun: str
    group: str
    """Group of the entry points."""
    key: str
    """The setting that names it."""
    options: str
    """The setting whose keys it receives."""
    built_in: tuple[str, ...]


BACKBONE = Kind("backbone", "ccsd.backbones", "model.backbone", "model.options", get_args(BuiltInBackbone))
OBJECTIVE = Kind("objective", "ccsd.objectives", "distillation.method", "distillation.options", get_args(Method))
KINDS = (BACKBONE, OBJECTIVE)


class PluginRecord(BaseModel):
    """Which plugin a run was trained with, as recorded in run.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str
    name: str
    distribution: str = ""
    """Empty for a module that is not installed."""
    version: str = ""
    source: str = ""
    """Digest of the file that has the factory."""

    def __str__(self) -> str:
        installed = f"{self.distribution} {self.version}" if self.distribution else "not installed"
        return f"{self.kind} {self.name} ({installed}, source {self.source or 'unknown'})"


@dataclass(frozen=True)
class Plugin:
    """A plugin that was found, but is not yet imported."""

    kind: Kind
    name: str
    module: str
    attribute: str
    distribution: str
    version: str

    def load(self) -> Callable[..., Any]:
        """Import the module and return the factory.

        Raises
        ------
        UsageError
            If the import fails, or the module has no such factory.
        """
        what = f"{self.kind.key}={self.name}"
        try:
            found: Any = importlib.import_module(self.module)
        except Exception as error:
            raise UsageError(
                f"{what}: importing {self.module} failed: {type(error).__name__}: {error}; CCSD_DEBUG=1 shows where"
            ) from error
        for part in self.attribute.split("."):
            if not hasattr(found, part):
                names = ", ".join(sorted(n for n in vars(found) if callable(getattr(found, n)) and n[0] != "_"))
                raise UsageError(f"{what}: {self.module} has no {part}; it has: {names or 'nothing callable'}")
            found = getattr(found, part)
        if not callable(found):
            raise UsageError(f"{what}: {self.attribute} of {self.module} is not a factory: it cannot be called")
        factory: Callable[..., Any] = found
        return factory

    def build(self, task: Task, options: Mapping[str, Any]) -> Any:
        """Return what the factory builds from the task and the options.

        Raises
        ------
        UsageError
            If it cannot be imported, does not accept these options, or fails.
        """
        factory = self.load()
        try:
            signature(factory).bind(task, **options)
        except TypeError as error:
            raise UsageError(
                f"{self.kind.key}={self.name}: its factory {self.attribute}{_shown(factory)} is called with the task "
                f"and the keys of {self.kind.options} ({', '.join(options) or 'none'}): {error}"
            ) from None
        try:
            return factory(task, **options)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"{self.kind.key}={self.name}: its factory failed: {type(error).__name__}: {error}; CCSD_DEBUG=1 shows "
                "where"
            ) from error

    @property
    def record(self) -> PluginRecord:
        """The entry in run.json."""
        spec = _spec(self.module)
        file = Path(spec.origin) if spec and spec.origin else None
        source = hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file and file.is_file() else ""
        return PluginRecord(
            kind=self.kind.noun,
            name=self.name,
            distribution=self.distribution,
            version=self.version,
            source=source,
        )


def is_plugin(kind: Kind, name: str) -> bool:
    """Return whether a name is not one of ours."""
    return name not in kind.built_in


def find(kind: Kind, name: str) -> Plugin:
    """Return a plugin by its name.

    Raises
    ------
    UsageError
        If there is none, several distributions have the name, or the module cannot be found.
    """
    if ":" in name:
        return _of_path(kind, name)
    points = [point for point in metadata.entry_points(group=kind.group) if point.name == name]
    if len({point.value for point in points}) > 1:
        owners = " and ".join(sorted(f"{_owner(point)[0]} ({point.value})" for point in points))
        raise UsageError(f"{kind.key}={name}: several packages offer this name, {owners}; select one as module:factory")
    if not points:
        raise UsageError(f"{kind.key}={name}: there is no such {kind.noun}; {offered(kind)}")
    module, _, attribute = points[0].value.partition(":")
    return Plugin(kind, name, module.strip(), attribute.strip(), *_owner(points[0]))


def offered(kind: Kind) -> str:
    """Return the available choices in words."""
    points = sorted({(point.name, _owner(point)[0]) for point in metadata.entry_points(group=kind.group)})
    installed = ", ".join(f"{name} (of {owner})" for name, owner in points) or "none"
    return (
        f"ours: {', '.join(kind.built_in)}; entry points of the group {kind.group}: {installed}; or "
        "package.module:factory of a module that is installed or on PYTHONPATH"
    )


def _of_path(kind: Kind, name: str) -> Plugin:
    module, _, attribute = name.partition(":")
    if _spec(module) is None:
        raise UsageError(f"{kind.key}={name}: no module {module} is found by {sys.executable}; {WHERE}")
    owners = _distributions(tuple(sys.path)).get(module.partition(".")[0], [])
    return Plugin(kind, name, module, attribute, *((owners[0], metadata.version(owners[0])) if owners else ("", "")))


@cache
def _distributions(_path: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Return which distributions have a package; reads the file list of each, which takes a third of a second."""
    return metadata.packages_distributions()


def _spec(module: str) -> ModuleSpec | None:
    """Return the location of a module without importing its packages, which may need what this machine lacks."""
    name, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # for __main__
        return None
    for part in rest:
        name, within = f"{name}.{part}", spec and spec.submodule_search_locations
        spec = PathFinder.find_spec(name, within) if within else None
    return spec


def _owner(point: metadata.EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("", "")


def _shown(factory: Callable[..., Any]) -> str:
    try:
        return str(signature(factory))
    except (TypeError, ValueError):
        return "(...)"

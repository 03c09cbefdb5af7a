"""What a packed model must not say: which code or which files of a machine are to be used."""

from collections.abc import Iterator, Mapping
from pathlib import PureWindowsPath
from typing import Any

from ccsd.errors import UsageError
from ccsd.saved import SavedModel


def refuse_this_machine(model: SavedModel) -> None:
    """Reject a model that chooses what of the machine is read or run: it may come from anybody.

    A network named as `module:factory` could be any function of any module; an entry point is a package's own word that
    it offers a network. A task that is a name would be read from a file, and so may be what a plugin gets.

    Raises
    ------
    UsageError
        If the task is a name, the network is named by its module, or an option of it is a path of a machine.
    """
    if not isinstance(model.record.config.get("task", {}), Mapping):
        raise UsageError(
            f"{model.where}: names its task instead of having it whole, which a packed file must not; not written by "
            "`ccsd pack`, do not use it"
        )
    if ":" in (name := model.config.model.backbone):
        raise UsageError(
            f"{model.where}: model.backbone={name} names code by its module, which a packed file must not; offer the "
            "network as an entry point (docs/how-to/plugins.md), or copy the folder of the run instead"
        )
    for key, value in _texts(model.config.model.options):
        if _leaves(value):
            raise UsageError(
                f"{model.where}: model.options{key}={value} is a path of a machine, which a packed model cannot have; "
                "train with a name that the plugin finds anywhere"
            )


def _leaves(text: str) -> bool:
    path = PureWindowsPath(text)
    return text.startswith(("/", "~", "\\")) or bool(path.drive) or ".." in path.parts


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _texts(item, f"{key}.{number}")

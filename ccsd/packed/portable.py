"""What a packed model must not contain: which code or which files of a machine to use."""

from collections.abc import Iterator, Mapping
from pathlib import PureWindowsPath
from typing import Any

from ccsd.errors import UsageError
from ccsd.saved import SavedModel


def reject_local_references(model: SavedModel) -> None:
    """Reject a model that chooses which files or code of the machine are read or run: it may come from anybody.

    A network named as `module:factory` could be any function of any module, whereas with an entry point a package
    itself declares that it offers a network. A task given by name would be read from a file, and a plug-in may read the
    paths in its options.

    Raises
    ------
    UsageError
        If the task is a name, the network is named by its module, or an option of it is a path of a machine.
    """
    if not isinstance(model.record.config.get("task", {}), Mapping):
        raise UsageError(
            f"{model.where}: only names its task, but a packed file must contain the whole task; not written by "
            "`ccsd pack`, do not use it"
        )
    if ":" in (name := model.config.model.backbone):
        raise UsageError(
            f"{model.where}: model.backbone={name} names code by its module, which is not allowed in a packed "
            "file; offer the network as an entry point (docs/how-to/plugins.md), or copy the folder of the run instead"
        )
    for key, value in _texts(model.config.model.options):
        if _leaves(value):
            raise UsageError(
                f"{model.where}: model.options{key}={value} is a path on one machine, which is not allowed in a "
                "packed model; train with a name that the plugin finds on any machine"
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

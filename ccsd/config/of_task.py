"""Settings that depend on the task: names of sequences and combinations, and defaults that differ between tasks."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from preprocess.errors import InputError
from preprocess.task import Task, default_task

_Found = TypeVar("_Found")
_STATIC_ORDER = ("t1ce", "flair", "t2", "t1")
"""Order for the default task, the most critical first, from the published averages of other methods."""
_VALIDATED = ("flair+t1+t1ce+t2", "flair+t1+t2", "t1ce", "flair")
"""For the default task: everything; everything without contrast agent; each of the two most informative sequences."""


def default_validation(task: Task) -> tuple[str, ...]:
    """Return the combinations that a training validates by default: few, as each one costs time.

    In all tasks except the default one: all sequences together, and each of the first four alone.
    """
    if _is_default(task):
        return _VALIDATED
    return tuple(dict.fromkeys([task.full_name, *task.modalities[: len(_VALIDATED)]]))


def known_order(task: Task) -> tuple[str, ...]:
    """Return the known order of criticality of the sequences, the most critical first; empty if there is none."""
    return _STATIC_ORDER if _is_default(task) else ()


def removal_order(names: Iterable[str], task: Task) -> tuple[str, ...]:
    """Return an order of all sequences in our names.

    Raises
    ------
    ValueError
        If one is missing, repeated or unknown.
    """
    order = or_value_error("static_order", lambda: tuple(task.modality(name) for name in names))
    if order and sorted(order) != sorted(task.modalities):
        raise ValueError(f"static_order: name every sequence once: {', '.join(task.modalities)}")
    return order


def canonical(key: str, names: Iterable[str], task: Task) -> tuple[str, ...]:
    """Return the canonical names of combinations.

    Raises
    ------
    ValueError
        If the task does not have a sequence; the message begins with the key.
    """
    return or_value_error(key, lambda: tuple(task.subset_name(name) for name in names))


def or_value_error(key: str, look_up: Callable[[], _Found]) -> _Found:
    """Return the result of a look-up; turn its error into a ValueError, as validators of a model raise it."""
    try:
        return look_up()
    except InputError as error:
        raise ValueError(f"{key}: {error}") from None


def _is_default(task: Task) -> bool:
    return task.digest == default_task().digest

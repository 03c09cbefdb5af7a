"""A task: which classes are segmented from which sequences, described in one small YAML file.

Users refer to sequences, classes and regions by name; every tensor and array has them in the order of the task. The
tasks that come with the program are in `preprocess/tasks`; a user's own task is a file of the same kind.
"""

import json
import os
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from preprocess.errors import InputError
from preprocess.reading import read_model
from preprocess.task_file import (
    RESERVED,
    Cleanup,
    LabelConvention,
    LesionLimits,
    LesionRule,
    SequenceName,
    TaskFile,
    default_subsets,
)

__all__ = [
    "ALIASES",
    "DEFAULT_TASK",
    "RESERVED",
    "AnyTask",
    "Cleanup",
    "LabelConvention",
    "LesionLimits",
    "LesionRule",
    "SequenceName",
    "Subset",
    "Task",
    "default_task",
    "is_shipped",
    "read_task",
    "reject_mixture",
    "shipped_tasks",
]

DEFAULT_TASK = "brats-gli-pre"
"""Name of the default task: glioma before treatment."""

ALIASES = {
    "flair": "flair", "t2f": "flair", "t2-flair": "flair", "t2flair": "flair",
    "t1": "t1", "t1w": "t1", "t1n": "t1",
    "t1ce": "t1ce", "t1c": "t1ce", "t1gd": "t1ce", "t1contrast": "t1ce",
    "t2": "t2", "t2w": "t2",
}  # fmt: skip
"""Lower-case name used by a data set -> our name for the sequence."""

Subset = tuple[str, ...]
"""A non-empty combination of sequences, in the order of the task."""


class Task(TaskFile):
    """Which classes are segmented from which sequences: the keys of a task file, and what they mean together."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the sequences, in the order of every modality axis."""
        return tuple(self.sequences)

    def numbers(self, region: str) -> tuple[int, ...]:
        """Return the internal numbers of the classes of a region, which may be one that is only scored."""
        return tuple(sorted(self.classes[name] for name in self.scored_regions[region]))

    @cached_property
    def conventions(self) -> dict[str, LabelConvention]:
        """The label conventions by their names."""
        return {
            name: LabelConvention(
                name,
                {number: self.classes[label] for label, number in numbers.items() if label in self.classes},
                {number: label for label, number in numbers.items()},
            )
            for name, numbers in self.numbering.items()
        }

    @property
    def default_convention(self) -> LabelConvention:
        """The convention for output whose input has no label numbers: the first one that has every class."""
        return next(c for c in self.conventions.values() if self._is_complete(c))

    def output_convention(self, convention: LabelConvention) -> LabelConvention:
        """Return the convention in which to write a segmentation: this one, unless it lacks a class of the task."""
        return convention if self._is_complete(convention) else self.default_convention

    def _is_complete(self, convention: LabelConvention) -> bool:
        return set(convention.values.values()) == set(self.classes.values())

    def convention(self, name: str) -> LabelConvention:
        """Return a label convention by its name.

        Raises
        ------
        InputError
            If the task has no convention of this name.
        """
        if name not in self.conventions:
            raise InputError(
                f"labels {name}: unknown convention of the task {self.name}; allowed: {', '.join(self.conventions)}"
            )
        return self.conventions[name]

    @cached_property
    def digest(self) -> str:
        """12 hexadecimal digits of what affects data and training: name, sequences, classes, regions and painting."""
        core = self.model_dump(mode="json", include={"name", "classes", "regions", "paint"})
        return sha256(json.dumps([core, self.modalities]).encode()).hexdigest()[:12]

    @cached_property
    def scoring_digest(self) -> str:
        """12 hexadecimal digits of what affects scores: the same, and scored regions, lesion rule and clean-up."""
        rest = self.model_dump(mode="json", include={"scored", "lesions", "cleanup"})
        return sha256(json.dumps([self.digest, rest]).encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """The name with the digest, for tables and messages: `brats-ped@0123456789ab`."""
        return f"{self.name}@{self.digest}"

    def word(self, name: str) -> str:
        """Return the display name of a class or a region."""
        return self.words.get(name, name)

    def modality(self, name: str) -> str:
        """Return our name for a sequence given by any alias, in upper or lower case.

        Raises
        ------
        InputError
            If the task has no such sequence; the message lists the known names.
        """
        plain = name.strip().lower()
        found = plain if plain in self.sequences else ALIASES.get(plain, "")
        if found not in self.sequences:
            allowed = [*self.sequences, *(alias for alias, ours in ALIASES.items() if ours in self.sequences)]
            raise InputError(f"unknown modality {name!r}; allowed: {', '.join(dict.fromkeys(allowed))}")
        return found

    def subset(self, names: str | Iterable[str]) -> Subset:
        """Return the combination named by `"flair+t1ce"` or by several names, in canonical order without repeats.

        Raises
        ------
        InputError
            If it is empty or names a sequence that the task does not have.
        """
        parts = names.replace(",", "+").split("+") if isinstance(names, str) else list(names)
        found = {self.modality(part) for part in parts if part.strip()}
        if not found:
            raise InputError(
                f"no modality in {names!r}; give at least one of {', '.join(self.sequences)}, joined by '+'"
            )
        return tuple(m for m in self.sequences if m in found)

    def subset_name(self, names: str | Iterable[str]) -> str:
        """Return the canonical name of a combination: `"t1ce,FLAIR"` gives `"flair+t1ce"`."""
        return "+".join(self.subset(names))

    def is_subset(self, name: str) -> bool:
        """Return whether this is the canonical name of a combination of the task's sequences."""
        parts = name.split("+")
        return parts == [m for m in self.sequences if m in parts]

    @property
    def full_name(self) -> str:
        """Canonical name of the combination of all sequences."""
        return "+".join(self.sequences)

    @cached_property
    def subset_names(self) -> tuple[str, ...]:
        """Names of the combinations that are evaluated by default, in the order of tables.

        All 2^M - 1 for up to five sequences; for more, those of one sequence, of all but one, and of all.
        """
        return default_subsets(self.modalities)

    def ordered_subsets(self, names: Iterable[str]) -> list[str]:
        """Return canonical names of combinations in the order of tables; without a place there, they follow by size."""
        given = set(names)
        if given <= set(self.subset_names):
            return [name for name in self.subset_names if name in given]
        places = {name: place for place, name in enumerate(self.modalities)}
        return sorted(given, key=lambda name: (name.count("+"), [places[part] for part in name.split("+")]))

    def display_name(self, name: str) -> str:
        """Return the display name of a combination: `FLAIR + T1ce`."""
        return " + ".join(self.sequences.get(part, part) for part in name.split("+"))


@cache
def shipped_tasks() -> dict[str, Task]:
    """Return the tasks that come with the program, by name, sorted."""
    folder = Path(__file__).parent / "tasks"
    return {path.stem: read_model(path, Task, "task") for path in sorted(folder.glob("*.yaml"))}


def is_shipped(task: Task) -> bool:
    """Return whether a task is one of those that come with the program, not a user's own of the same name."""
    shipped = shipped_tasks().get(task.name)
    return shipped is not None and (shipped.digest, shipped.numbering) == (task.digest, task.numbering)


def default_task() -> Task:
    """Return the default task."""
    return shipped_tasks()[DEFAULT_TASK]


def read_task(name: str) -> Task:
    """Return a task by its name, or by the path of a YAML file.

    Raises
    ------
    InputError
        If there is no such task, or the file has keys or values that cannot be used; every problem is listed.
    """
    if name in shipped_tasks():
        return shipped_tasks()[name]
    if not name.endswith((".yaml", ".yml")):
        raise InputError(f"task {name}: unknown; give the path of a .yaml file, or one of {', '.join(shipped_tasks())}")
    return read_model(Path(os.path.expanduser(name)), Task, "task")  # noqa: PTH111 - it raises for unknown users


def reject_mixture(tasks: Sequence[tuple[str, Task]]) -> None:
    """Reject a mixture of tasks.

    Parameters
    ----------
    tasks
        Description of each item for messages, with its task.

    Raises
    ------
    InputError
        If two of them differ in what affects data and training, or in the meaning of a number in one convention; both
        are named.
    """
    for what, task in tasks[1:]:
        first, expected = tasks[0]
        for name in task.numbering.keys() & expected.numbering.keys():
            if task.conventions[name] != expected.conventions[name]:
                raise InputError(
                    f"{what} and {first} belong to tasks that differ in the numbers of {name} "
                    f"({task.conventions[name]}; {expected.conventions[name]}); convert with one of them"
                )
        if task.digest != expected.digest:
            raise InputError(
                f"{what} belongs to the task {_distinct(task, expected)}, but {first} to {_distinct(expected, task)}; "
                "tasks cannot be mixed: convert, train and score with one of them"
            )


def _distinct(task: Task, other: Task) -> str:
    return task.label if task.name == other.name else task.name


def _as_task(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return read_task(value)
        except InputError as error:
            raise ValueError(str(error)) from None
    return value


AnyTask = Annotated[Task, BeforeValidator(_as_task, json_schema_input_type=str | dict[str, Any])]
"""A task as a field of a model: given in full, or by its name or path; written in full, so that no file is needed."""

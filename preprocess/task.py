"""A task: what is segmented from what, as data, in one small YAML file.

Sequences, classes and regions are named outside and ordered inside: every tensor and array has them in the order of the
task. Those that come with the program are in `preprocess/tasks`; a task of one's own is a file of the same kind.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from preprocess.errors import InputError, first_few
from preprocess.reading import read_mapping

DEFAULT_TASK = "brats-gli-pre"
"""Name of the task where none is given: glioma before treatment."""

ALIASES = {
    "flair": "flair", "t2f": "flair", "t2-flair": "flair", "t2flair": "flair",
    "t1": "t1", "t1w": "t1", "t1n": "t1",
    "t1ce": "t1ce", "t1c": "t1ce", "t1gd": "t1ce", "t1contrast": "t1ce",
    "t2": "t2", "t2w": "t2",
}  # fmt: skip
"""Lower-case name used by a data set -> our name of the sequence."""

RESERVED = ("seg", "segm", "segmentation", "label", "labels", "mask", "volumes", "channel")
"""Words and roles of files that no sequence may be called: they mean a segmentation, or several sequences."""

Subset = tuple[str, ...]
"""A non-empty combination of sequences, in the order of the task."""

_FIELD_ORDER = ("3", "2", "1", "0", "23", "12", "01", "13", "03", "02", "012", "013", "023", "123", "0123")
"""The order in which the field prints the 15 combinations of four sequences, by the place of each."""
_MOST_FOR_ALL = 5
_MOST_SEQUENCES = 16
_MOST_CLASSES = 255

SequenceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,19}$")]
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]{0,19}$")]
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Number = Annotated[int, Field(ge=1, le=_MOST_CLASSES)]


@dataclass(frozen=True)
class LabelConvention:
    """How a data set numbers the classes of a task.

    Attributes
    ----------
    name
        Name used in stores and tables.
    values
        Number in the file -> number of the class inside, without the background 0.
    names
        Number in the file -> what it stands for, also where that is no class of the task.
    """

    name: str
    values: Mapping[int, int] = field(hash=False)
    names: Mapping[int, str] = field(hash=False)

    @property
    def foreign(self) -> dict[int, str]:
        """What is no class of the task, by its number in the file."""
        return {number: name for number, name in self.names.items() if number not in self.values}

    def __str__(self) -> str:
        """Return what each number means, for messages."""
        return ", ".join(["0 background", *(f"{number} {name}" for number, name in self.names.items())])


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LesionLimits(_Part):
    """What one region has of its own in the lesion-wise rule."""

    dilation: NonNegativeInt | None = None
    smallest_mm3: NonNegativeFloat | None = None


class LesionRule(_Part):
    """The lesion-wise rule of a challenge; `ccsd.metrics.lesions` says how it scores.

    Attributes
    ----------
    dilation
        Steps of 18-connectivity within which components of the reference are one lesion.
    smallest_mm3
        Lesions of at most this volume are not scored.
    penalty_mm
        HD95 of a lesion that is missed or invented; `diagonal` is that of the array, in voxels.
    regions
        Limits of single regions.
    predicted
        Since 2024: predicted components are merged by the same dilation too, and those of at most the smallest volume,
        in voxels or in mm3, are removed before anything is scored. None is the rule of 2023, which does neither.
    merged_via
        Region -> classes: lesions of the region that touch one lesion of such a class are one, in this order.
    count_false
        Whether invented lesions count.
    """

    dilation: NonNegativeInt
    smallest_mm3: NonNegativeFloat
    penalty_mm: NonNegativeFloat | Literal["diagonal"]
    regions: dict[ClassName, LesionLimits] = {}
    predicted: Literal["voxels", "mm3"] | None = None
    merged_via: dict[ClassName, tuple[ClassName, ...]] = {}
    count_false: bool = True

    def limits(self, region: str) -> tuple[int, float]:
        """Return the dilation and the smallest volume of a region."""
        own = self.regions.get(region, LesionLimits())
        return (
            self.dilation if own.dilation is None else own.dilation,
            self.smallest_mm3 if own.smallest_mm3 is None else own.smallest_mm3,
        )


class Cleanup(_Part):
    """A class that becomes another one where a whole case has little of it."""

    below_mm3: NonNegativeFloat
    becomes: ClassName


class Task(_Part):
    """What is segmented from what.

    Attributes
    ----------
    name
        The file's own name without `.yaml`.
    sequences
        Name inside -> name that people read; the order of every modality axis.
    classes
        Class -> number inside, 1, 2, ...; 0 is background.
    regions
        Region -> its classes: what a network predicts, one channel each, and what is scored; the order of region axes.
    scored
        Regions that are scored and have no channel of their own.
    paint
        Region -> class that its voxels get in a label map, in this order, later over earlier.
    lesions
        The challenge's lesion-wise rule.
    cleanup
        Class -> when it becomes another one. Off unless asked for.
    numbering
        Label convention -> class -> number in files. What is no class of the task has to be allowed, and is background.
    words
        What people read for a class or region, by its name.
    """

    name: TaskName
    sequences: dict[SequenceName, str] = Field(min_length=1, max_length=_MOST_SEQUENCES)
    classes: dict[ClassName, Number] = Field(min_length=1)
    regions: dict[ClassName, tuple[ClassName, ...]] = Field(min_length=1)
    scored: dict[ClassName, tuple[ClassName, ...]] = {}
    paint: dict[ClassName, ClassName] = Field(min_length=1)
    lesions: LesionRule
    cleanup: dict[ClassName, Cleanup] = {}
    numbering: dict[TaskName, dict[ClassName, Number]] = Field(min_length=1)
    words: dict[ClassName, str] = {}

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        if taken := [name for name in self.sequences if name in RESERVED]:
            raise ValueError(f"sequences: {taken[0]} means something else in names of files; choose another name")
        if sorted(self.classes.values()) != list(range(1, len(self.classes) + 1)):
            raise ValueError(f"classes: number them from 1 to {len(self.classes)}, each once")
        self._check_known_names()
        self._check_regions()
        self._check_paint()
        self._check_numbering()
        return self

    def _check_known_names(self) -> None:
        for key, used, known in (
            ("regions", self.regions.values(), self.classes),
            ("scored", self.scored.values(), self.classes),
            ("paint", [self.paint], self.regions),
            ("paint", [self.paint.values()], self.classes),
            ("lesions.regions", [self.lesions.regions], self.scored_regions),
            ("lesions.merged_via", [self.lesions.merged_via], self.scored_regions),
            ("lesions.merged_via", self.lesions.merged_via.values(), self.classes),
            ("cleanup", [self.cleanup], self.classes),
            ("cleanup", [[rule.becomes for rule in self.cleanup.values()]], self.classes),
        ):
            self._check_names(key, used, known)

    def _check_regions(self) -> None:
        if twice := set(self.regions) & set(self.scored):
            raise ValueError(f"scored: {', '.join(sorted(twice))} is among the regions already")
        for name, classes in self.scored_regions.items():
            if not classes or len(set(classes)) < len(classes):
                raise ValueError(f"regions: {name} needs at least one class, each once")
        if lost := [name for name in self.classes if not any(name in parts for parts in self.regions.values())]:
            raise ValueError(f"regions: no region has the class {', '.join(lost)}")
        folded = [name.casefold() for name in self.scored_regions]
        if len(set(folded)) < len(folded):
            raise ValueError("regions: two names differ only in upper and lower case")

    def _check_paint(self) -> None:
        if lost := [name for name in self.classes if name not in self.paint.values()]:
            raise ValueError(f"paint: no region is painted as {', '.join(lost)}, so no label map could have it")
        for region, name in self.paint.items():
            if name not in self.regions[region]:
                raise ValueError(f"paint: {region} is painted as {name}, which is no part of it")

    def _check_numbering(self) -> None:
        for convention, numbers in self.numbering.items():
            if len(set(numbers.values())) < len(numbers):
                raise ValueError(f"numbering.{convention}: two classes have one number")
            if not set(numbers) & set(self.classes):
                raise ValueError(f"numbering.{convention}: has none of the classes {', '.join(self.classes)}")
        if not any(set(self.classes) <= set(numbers) for numbers in self.numbering.values()):
            raise ValueError("numbering: give one with a number for every class: segmentations are written by it")

    def _check_names(self, key: str, used: Iterable[Iterable[str]], known: Iterable[str]) -> None:
        known = list(known)
        if wrong := [name for names in used for name in names if name not in known]:
            raise ValueError(f"{key}: unknown {wrong[0]}; allowed: {', '.join(known)}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the sequences, in the order of every modality axis."""
        return tuple(self.sequences)

    @cached_property
    def scored_regions(self) -> dict[str, tuple[str, ...]]:
        """Region -> its classes, those that are predicted first, then those that are only scored."""
        return {**self.regions, **self.scored}

    def numbers(self, region: str) -> tuple[int, ...]:
        """Return the numbers inside of the classes of a region, those that are only scored included."""
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
        """What is written where the input has no label numbers of its own: the first one that has every class."""
        return next(c for c in self.conventions.values() if self._is_complete(c))

    def output_convention(self, convention: LabelConvention) -> LabelConvention:
        """Return the convention that a segmentation is written in: this one, unless it lacks a class of the task."""
        return convention if self._is_complete(convention) else self.default_convention

    def _is_complete(self, convention: LabelConvention) -> bool:
        return set(convention.values.values()) == set(self.classes.values())

    def convention(self, name: str) -> LabelConvention:
        """Return a label convention by its name.

        Raises
        ------
        InputError
            If the task has none of this name.
        """
        if name not in self.conventions:
            raise InputError(
                f"labels {name}: unknown convention of the task {self.name}; allowed: {', '.join(self.conventions)}"
            )
        return self.conventions[name]

    @cached_property
    def digest(self) -> str:
        """12 hexadecimal digits of what decides data and training: name, sequences, classes, regions and painting."""
        core = self.model_dump(mode="json", include={"name", "classes", "regions", "paint"})
        return sha256(json.dumps([core, self.modalities]).encode()).hexdigest()[:12]

    @cached_property
    def scoring_digest(self) -> str:
        """12 hexadecimal digits of what decides scores: the same, and scored regions, lesion rule and clean-up."""
        rest = self.model_dump(mode="json", include={"scored", "lesions", "cleanup"})
        return sha256(json.dumps([self.digest, rest]).encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """The name with the digest, for tables and messages: `brats-ped@0123456789ab`."""
        return f"{self.name}@{self.digest}"

    def word(self, name: str) -> str:
        """Return what people read for a class or a region."""
        return self.words.get(name, name)

    def modality(self, name: str) -> str:
        """Return our name of a sequence given by any alias, in any case.

        Raises
        ------
        InputError
            If the task has no such sequence; the message lists the names that are known.
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

        All 2^M - 1 up to five sequences; of more those of one sequence, of all but one, and of all.
        """
        names, count = self.modalities, len(self.sequences)
        if count == len(_FIELD_ORDER[-1]):
            return tuple("+".join(names[int(place)] for place in places) for places in _FIELD_ORDER)
        sizes = range(1, count + 1) if count <= _MOST_FOR_ALL else (1, count - 1, count)
        return tuple("+".join(chosen) for size in sizes for chosen in combinations(names, size))

    def ordered_subsets(self, names: Iterable[str]) -> list[str]:
        """Return canonical names of combinations in the order of tables, those not evaluated by default by size."""
        given = set(names)
        if given <= set(self.subset_names):
            return [name for name in self.subset_names if name in given]
        places = {name: place for place, name in enumerate(self.modalities)}
        return sorted(given, key=lambda name: (name.count("+"), [places[part] for part in name.split("+")]))

    def display_name(self, name: str) -> str:
        """Return a combination as people write it: `FLAIR + T1ce`."""
        return " + ".join(self.sequences.get(part, part) for part in name.split("+"))


@cache
def shipped_tasks() -> dict[str, Task]:
    """Return the tasks that come with the program, by name, sorted."""
    folder = Path(__file__).parent / "tasks"
    return {path.stem: _read(path) for path in sorted(folder.glob("*.yaml"))}


def is_shipped(task: Task) -> bool:
    """Return whether a task is one of those that come with the program, and not one's own of the same name."""
    shipped = shipped_tasks().get(task.name)
    return shipped is not None and shipped.digest == task.digest


def default_task() -> Task:
    """Return the task where none is given."""
    return shipped_tasks()[DEFAULT_TASK]


def read_task(name: str) -> Task:
    """Return a task by its name, or by the path of a YAML file.

    Raises
    ------
    InputError
        If there is none, or the file has keys or values that cannot be used; every problem is listed.
    """
    if name in shipped_tasks():
        return shipped_tasks()[name]
    if not name.endswith((".yaml", ".yml")):
        raise InputError(f"task {name}: unknown; give the path of a .yaml file, or one of {', '.join(shipped_tasks())}")
    return _read(Path(name))


def refuse_mixture(tasks: Sequence[tuple[str, Task]]) -> None:
    """Refuse what belongs to different tasks.

    Parameters
    ----------
    tasks
        What it is, in words for people, with its task.

    Raises
    ------
    InputError
        If two of them differ in anything but the words; both are named.
    """
    for what, task in tasks[1:]:
        first, expected = tasks[0]
        if task.digest != expected.digest:
            raise InputError(
                f"{what} belongs to the task {_distinct(task, expected)}, but {first} to {_distinct(expected, task)}; "
                "tasks cannot be mixed: convert, train and score with one of them"
            )


def _distinct(task: Task, other: Task) -> str:
    return task.label if task.name == other.name else task.name


def _read(path: Path) -> Task:
    values = read_mapping(path, "task", "the keys of a task; docs/data.md has an example")
    try:
        return Task.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        found = [_problem(item) for item in error.errors(include_url=False)]
        raise InputError(f"{path}: the task cannot be used: {first_few(found, 10, '; ')}") from None


def _problem(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = Task.model_fields if len(item["loc"]) == 1 else []
        return f"{where}: unknown key" + (f"; allowed: {', '.join(known)}" if known else "")
    text = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


def _as_task(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return read_task(value)
        except InputError as error:
            raise ValueError(str(error)) from None
    return value


AnyTask = Annotated[Task, BeforeValidator(_as_task, json_schema_input_type=str | dict[str, Any])]
"""A task in a model: given whole, or by its name or path; written whole, so that it needs no file."""

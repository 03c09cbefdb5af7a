"""The keys of a task file and their validation; `preprocess.task` defines what they mean together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, model_validator

RESERVED = (
    "seg", "segm", "segmentation", "label", "labels", "mask", "volumes", "channel",
    "ignored", "unknown", "orphan", "unread", "given", "brain",
)  # fmt: skip
"""Names that no sequence may have: words and roles for a segmentation, several sequences, or an unused file."""
_NO_CONVENTION = ("auto", "dataset.json")
"""Names that mean something else in options and messages."""

_FIELD_ORDER = ("3", "2", "1", "0", "23", "12", "01", "13", "03", "02", "012", "013", "023", "123", "0123")
"""The usual order of the 15 combinations of four sequences in publications, as positions of the sequences."""
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
        Number in the file -> internal number of the class, without the background 0.
    names
        Number in the file -> what it stands for, including what is not a class of the task.
    """

    name: str
    values: Mapping[int, int] = field(hash=False)
    names: Mapping[int, str] = field(hash=False)

    @property
    def foreign(self) -> dict[int, str]:
        """What is not a class of the task, by its number in the file."""
        return {number: name for number, name in self.names.items() if number not in self.values}

    def __str__(self) -> str:
        """Return the meaning of each number, for messages."""
        return ", ".join(["0 background", *(f"{number} {name}" for number, name in self.names.items())])


class Part(BaseModel):
    """A part of a task file: immutable, unknown keys rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LesionLimits(Part):
    """Limits that replace those of the lesion-wise rule for one region."""

    dilation: NonNegativeInt | None = None
    smallest_mm3: NonNegativeFloat | None = None


class LesionRule(Part):
    """The lesion-wise rule of a challenge; `ccsd.metrics.lesions` applies it.

    Attributes
    ----------
    dilation
        Dilation steps with 18-connectivity; components of the reference that then touch are one lesion.
    smallest_mm3
        Lesions of at most this volume are not scored.
    penalty_mm
        HD95 of a missed or false-positive lesion; `diagonal` is that of the array, in voxels.
    regions
        Limits of individual regions.
    predicted
        Since 2024, predicted components are merged by the same dilation too, and those of at most the smallest volume,
        in voxels or in mm3, are removed before scoring. None is the rule of 2023, which does neither.
    merged_via
        Region -> classes: lesions of the region that touch the same lesion of such a class are merged, in this order.
    count_false
        Whether false-positive lesions count.
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


class Cleanup(Part):
    """A class that is replaced by another one if a whole case has little of it."""

    below_mm3: NonNegativeFloat
    becomes: ClassName


class TaskFile(Part):
    """The keys of a task file.

    Attributes
    ----------
    name
        The file's own name without `.yaml`.
    sequences
        Internal name -> display name; the order of every modality axis.
    classes
        Class -> internal number, 1, 2, ...; 0 is background.
    regions
        Region -> its classes: what a network predicts, one channel each, and what is scored; the order of region axes.
    scored
        Regions that are scored without having a channel.
    paint
        Region -> class that its voxels get in a label map; later entries overwrite earlier ones.
    lesions
        The challenge's lesion-wise rule.
    cleanup
        Class -> when it is replaced by another one. Off by default.
    numbering
        Label convention -> class -> number in files. What is not a class of the task must be allowed explicitly, and
        becomes background.
    words
        Display name of a class or region, by its name.
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
            raise ValueError(f"sequences: {taken[0]} means something else in file names; choose another name")
        shown = list(self.sequences.values())
        if len(set(shown)) < len(shown) or not all(name.strip() for name in shown):
            raise ValueError("sequences: give each a display name of its own")
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
            raise ValueError(f"scored: {', '.join(sorted(twice))} is already among the regions")
        for name, classes in self.scored_regions.items():
            if not classes or len(set(classes)) < len(classes):
                raise ValueError(f"regions: {name} needs at least one class, and none twice")
        if lost := [name for name in self.classes if not any(name in parts for parts in self.regions.values())]:
            raise ValueError(f"regions: no region has the class {', '.join(lost)}")
        folded = [name.casefold() for name in self.scored_regions]
        if len(set(folded)) < len(folded):
            raise ValueError("regions: two names differ only in upper and lower case")

    def _check_paint(self) -> None:
        if lost := [name for name in self.classes if name not in self.paint.values()]:
            raise ValueError(f"paint: no region is painted as {', '.join(lost)}, so no label map could contain it")
        for region, name in self.paint.items():
            if name not in self.regions[region]:
                raise ValueError(f"paint: {region} is painted as {name}, which is not part of it")

    def _check_numbering(self) -> None:
        for convention, numbers in self.numbering.items():
            if convention in _NO_CONVENTION:
                raise ValueError(
                    f"numbering.{convention}: means something else on the command line; choose another name"
                )
            if len(set(numbers.values())) < len(numbers):
                raise ValueError(f"numbering.{convention}: two classes have the same number")
            if not set(numbers) & set(self.classes):
                raise ValueError(f"numbering.{convention}: has none of the classes {', '.join(self.classes)}")
        if not any(set(self.classes) <= set(numbers) for numbers in self.numbering.values()):
            raise ValueError("numbering: give one with a number for every class: segmentations are written with it")

    def _check_names(self, key: str, used: Iterable[Iterable[str]], known: Iterable[str]) -> None:
        known = list(known)
        if wrong := [name for names in used for name in names if name not in known]:
            raise ValueError(f"{key}: unknown {wrong[0]}; allowed: {', '.join(known)}")

    @cached_property
    def scored_regions(self) -> dict[str, tuple[str, ...]]:
        """Region -> its classes: first the predicted regions, then those that are only scored."""
        return {**self.regions, **self.scored}


def default_subsets(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the combinations of sequences evaluated by default, in the order of tables."""
    count = len(names)
    if count == len(_FIELD_ORDER[-1]):
        return tuple("+".join(names[int(place)] for place in places) for places in _FIELD_ORDER)
    sizes = range(1, count + 1) if count <= _MOST_FOR_ALL else (1, count - 1, count)
    return tuple("+".join(chosen) for size in sizes for chosen in combinations(names, size))

"""Parts of a task: label conventions, the lesion rule, the clean-up, and which combinations are evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

_FIELD_ORDER = ("3", "2", "1", "0", "23", "12", "01", "13", "03", "02", "012", "013", "023", "123", "0123")
"""The order in which the field prints the 15 combinations of four sequences, by the place of each."""
_MOST_FOR_ALL = 5
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


class Part(BaseModel):
    """What is in a task file: unknown keys are refused, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LesionLimits(Part):
    """What one region has of its own in the lesion-wise rule."""

    dilation: NonNegativeInt | None = None
    smallest_mm3: NonNegativeFloat | None = None


class LesionRule(Part):
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


class Cleanup(Part):
    """A class that becomes another one where a whole case has little of it."""

    below_mm3: NonNegativeFloat
    becomes: ClassName


def default_subsets(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the combinations of sequences that are evaluated by default, in the order of tables."""
    count = len(names)
    if count == len(_FIELD_ORDER[-1]):
        return tuple("+".join(names[int(place)] for place in places) for places in _FIELD_ORDER)
    sizes = range(1, count + 1) if count <= _MOST_FOR_ALL else (1, count - 1, count)
    return tuple("+".join(chosen) for size in sizes for chosen in combinations(names, size))

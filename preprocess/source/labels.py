"""Label conventions of the data sets, and their translation to the classes used inside (`modalities.LABELS`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import InputError, first_few
from preprocess.modalities import LABELS, REGIONS

_FEW = 16
_SLACK = 1e-3
CAVITY = "resection-cavity"
"""Name of the check that refuses BraTS 2024's label 4; allowed, the cavity counts as background."""


@dataclass(frozen=True)
class LabelConvention:
    """How a data set numbers the classes.

    Attributes
    ----------
    name
        Name used in stores and tables.
    values
        Value in the file -> class inside, without the background 0.
    cavity
        Value that stands for the resection cavity, which has no class inside.
    """

    name: str
    values: Mapping[int, int] = field(hash=False)
    cavity: int | None = None

    def __str__(self) -> str:
        """Return what each value means, for messages."""
        names = {number: name for name, number in LABELS.items()}
        parts = [f"{value} {names[number]}" for value, number in self.values.items()]
        return ", ".join(["0 background", *parts, *([f"{self.cavity} resection cavity"] if self.cavity else [])])


CONVENTIONS = {
    convention.name: convention
    for convention in (
        LabelConvention("brats2020", {1: LABELS["NCR"], 2: LABELS["ED"], 4: LABELS["ET"]}),
        LabelConvention("brats2023", {1: LABELS["NCR"], 2: LABELS["ED"], 3: LABELS["ET"]}),
        LabelConvention("brats2024", {1: LABELS["NCR"], 2: LABELS["ED"], 3: LABELS["ET"]}, cavity=4),
        LabelConvention("msd", {1: LABELS["ED"], 2: LABELS["NCR"], 3: LABELS["ET"]}),
        LabelConvention("deepbratumia", {1: LABELS["NCR"], 2: LABELS["ET"], 3: LABELS["ED"]}),
    )
}
"""`brats2020` holds for 2018 to 2021, `brats2024` for the post-treatment cases of 2024, `msd` for Task01,
`deepbratumia` for the automatic segmentations of LUMIERE."""
DEFAULT = CONVENTIONS["brats2023"]
"""What is written where the input has no label numbers of its own."""


def convention_named(name: str) -> LabelConvention:
    """Return a convention by its name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in CONVENTIONS:
        raise InputError(f"labels {name}: unknown convention; allowed: {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def count_values(array: NDArray[np.generic]) -> dict[int | float, int]:
    """Return how many voxels have each value; whole numbers as int."""
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.integer) and int(high) - int(low) < _FEW:  # much faster than sorting
        counts = {value: int(np.count_nonzero(array == value)) for value in range(int(low), int(high) + 1)}
        return {value: number for value, number in counts.items() if number}
    values, numbers = np.unique(array, return_counts=True)
    return {
        int(value) if float(value).is_integer() else float(value): int(number)
        for value, number in zip(values.tolist(), numbers.tolist(), strict=True)
    }


def fitting(found: Mapping[int | float, int]) -> list[LabelConvention]:
    """Return the conventions without a cavity that know all values; of those that agree on them the first."""
    known: dict[tuple[int, ...], LabelConvention] = {}
    for convention in CONVENTIONS.values():
        if convention.cavity is None and found.keys() <= {0, *convention.values}:
            meaning = tuple(convention.values[int(value)] for value in sorted(found) if value)
            known.setdefault(meaning, convention)
    return list(known.values())


def readings(found: Mapping[int | float, int], voxel_ml: float) -> str:
    """Return what each convention would make of the values: the regions in millilitres."""
    texts = []
    for convention in CONVENTIONS.values():
        if wrong_values(found, convention):
            continue
        classes = {convention.values.get(int(value)): number for value, number in found.items()}
        sizes = {region: sum(classes.get(c, 0) for c in parts) * voxel_ml for region, parts in REGIONS.items()}
        texts.append(f"{convention.name} ({', '.join(f'{region} {size:.1f} ml' for region, size in sizes.items())})")
    return ", ".join(texts) or f"none of {', '.join(CONVENTIONS)} knows all of them"


def whole_numbers(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return a label map of real numbers rounded, if all are within 0.001 of a whole number, else as it is."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(invalid="ignore"):
        near = np.rint(array)
        return near if bool((np.abs(array - near) <= _SLACK).all()) else array


def wrong_values(found: Mapping[int | float, int], convention: LabelConvention) -> str:
    """Return what to say of values that the convention does not know, nothing if there are none."""
    allowed = {0, *convention.values, convention.cavity}
    wrong = [f"{value} ({number} voxels)" for value, number in sorted(found.items()) if value not in allowed]
    if not wrong:
        return ""
    return f"wrong label values: {first_few(wrong, 10)}; allowed in {convention.name}: {convention}"


def to_internal(array: NDArray[np.generic], convention: LabelConvention) -> NDArray[np.uint8]:
    """Return classes 0..3 for a label map in `convention`; the resection cavity becomes background.

    Raises
    ------
    InputError
        If there are other values than the convention knows; they are named with their counts.
    """
    if wrong := wrong_values(count_values(array), convention):
        raise InputError(wrong)
    return to_classes(array, convention)


def to_classes(array: NDArray[np.generic], convention: LabelConvention) -> NDArray[np.uint8]:
    """Do the same for a label map whose values have been checked."""
    table = np.zeros(np.iinfo(np.uint8).max + 1, np.uint8)
    for value, number in convention.values.items():
        table[value] = number
    return table[array.astype(np.uint8)]


def to_convention(array: NDArray[np.uint8], convention: LabelConvention) -> NDArray[np.uint8]:
    """Return a label map in `convention` for classes 0..3; the inverse of `to_internal` but for the cavity."""
    table = np.zeros(max(LABELS.values()) + 1, np.uint8)
    for value, number in convention.values.items():
        table[number] = value
    return table[array]

"""Label numbers of data sets, and their translation to the classes of a task (`preprocess.task`)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import InputError, first_few
from preprocess.task import LabelConvention, Task

_FEW = 16
_SLACK = 1e-3


def count_values(array: NDArray[np.generic]) -> dict[int | float, int]:
    """Return the number of voxels with each value; whole numbers as int."""
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.integer) and int(high) - int(low) < _FEW:  # much faster than sorting
        counts = {value: int(np.count_nonzero(array == value)) for value in range(int(low), int(high) + 1)}
        return {value: number for value, number in counts.items() if number}
    values, numbers = np.unique(array, return_counts=True)
    return {
        int(value) if float(value).is_integer() else float(value): int(number)
        for value, number in zip(values.tolist(), numbers.tolist(), strict=True)
    }


def readings(found: Mapping[int | float, int], voxel_ml: float, task: Task) -> str:
    """Return the volumes of the regions in millilitres under each convention that knows the values."""
    texts = []
    for convention in task.conventions.values():
        if wrong_values(found, convention):
            continue
        classes = {convention.values.get(int(value)): number for value, number in found.items()}
        sizes = {r: sum(classes.get(c, 0) for c in task.numbers(r)) * voxel_ml for r in task.regions}
        texts.append(f"{convention.name} ({', '.join(f'{region} {size:.1f} ml' for region, size in sizes.items())})")
    return ", ".join(texts) or f"none of {', '.join(task.conventions)} has all of them"


def whole_numbers(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return a label map of real numbers, rounded if all are within 0.001 of a whole number, otherwise unchanged."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(invalid="ignore"):
        near = np.rint(array)
        return near if bool((np.abs(array - near) <= _SLACK).all()) else array


def wrong_values(found: Mapping[int | float, int], convention: LabelConvention) -> str:
    """Return a message about values that the convention does not know; empty if there are none."""
    allowed = {0, *convention.names}
    wrong = [f"{value} ({number} voxels)" for value, number in sorted(found.items()) if value not in allowed]
    if not wrong:
        return ""
    return f"wrong label values: {first_few(wrong, 10)}; allowed in {convention.name}: {convention}"


def to_internal(array: NDArray[np.generic], convention: LabelConvention) -> NDArray[np.uint8]:
    """Return the classes, uint8, for a label map in `convention`; what is not a class becomes background.

    Raises
    ------
    InputError
        If there are values that the convention does not know; they are named with their counts.
    """
    if wrong := wrong_values(count_values(array), convention):
        raise InputError(wrong)
    return to_classes(array, convention)


def to_classes(array: NDArray[np.generic], convention: LabelConvention) -> NDArray[np.uint8]:
    """Do the same as `to_internal` for a label map whose values have been checked."""
    table = np.zeros(np.iinfo(np.uint8).max + 1, np.uint8)
    for value, number in convention.values.items():
        table[value] = number
    return table[array.astype(np.uint8)]


def to_convention(array: NDArray[np.uint8], convention: LabelConvention) -> NDArray[np.uint8]:
    """Return a label map in `convention` for classes; the inverse of `to_internal`, except for what is not a class.

    Raises
    ------
    InputError
        If the convention has no number for a class (`Task.output_convention` returns one that has all).
    """
    table = np.zeros(np.iinfo(np.uint8).max + 1, np.uint8)
    for value, number in convention.values.items():
        table[number] = value
    for number in range(1, int(array.max(initial=0)) + 1):
        if not table[number] and (array == number).any():
            raise InputError(f"the convention {convention.name} has no number for class {number}; use one that does")
    return table[array]

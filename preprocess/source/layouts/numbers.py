"""What a `dataset.json` of nnU-Net says about its label numbers, where every name in it is known to the task."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preprocess.task import LabelConvention, Task

DATASET = "dataset.json"
"""Its name, and that of the label convention that it declares."""
_BACKGROUND = "background"
_SYNONYMS = (
    {"ncr", "netc", "necrosis", "necroticcore"},
    {"ed", "snfh", "edema", "oedema", "peritumoraledema", "peritumoraloedema"},
    {"et", "enhancing", "enhancingtumor", "enhancingtumour"},
    {"rc", "cavity", "resectioncavity"},
    {"wt", "wholetumor", "wholetumour"},
    {"tc", "tumorcore", "tumourcore"},
)
"""Names, without what is no letter or digit and in lower case, that mean the same class or region."""
_LARGEST = 255


def read_dataset(root: str) -> dict[str, Any]:
    """Return the keys of the `dataset.json` in a folder, none if there is none that can be read."""
    try:
        values = json.loads((Path(root) / DATASET).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def numbering_of(root: str, task: Task) -> LabelConvention | None:
    """Return what the `dataset.json` in a folder says about label numbers, in classes of the task.

    `labels` has the number, or several, by name (in version 1 of the format the name by number). Where one has several,
    all are regions, and a number means the class that is in just those regions.

    Returns
    -------
    LabelConvention or None
        None if the file does not say it, or has a name that the task does not know: then the user has to name it.
    """
    numbers = _numbers_by_name(read_dataset(root).get("labels"))
    names = task.scored_regions if any(len(found) > 1 for found in numbers.values()) else task.classes
    known = {_meaning(name, names): found for name, found in numbers.items()}
    if not numbers or None in known or len(known) < len(numbers):
        return None
    regions = {str(name): found for name, found in known.items()}
    if names is task.classes:
        values = {found[0]: task.classes[name] for name, found in regions.items()}
    else:
        values = _classes_by_regions(regions, task)
    if (
        not values
        or len(set(values.values())) < len(values)
        or len(values) < len({n for f in numbers.values() for n in f})
    ):
        return None
    words = {number: name for name, number in task.classes.items()}
    return LabelConvention(DATASET, values, {value: words[number] for value, number in values.items()})


def _numbers_by_name(labels: Any) -> dict[str, tuple[int, ...]]:
    """Return the numbers by name without the background, nothing if this is no such mapping."""
    if not isinstance(labels, Mapping):
        return {}
    if all(isinstance(name, str) for name in labels.values()):
        labels = {name: int(number) for number, name in labels.items() if re.fullmatch("[0-9]{1,3}", str(number))}
    found = {}
    for name, value in labels.items():
        numbers = value if isinstance(value, list) else [value]
        if not numbers or not all(type(number) is int and 0 <= number <= _LARGEST for number in numbers):
            return {}
        if _plain(str(name)) != _BACKGROUND:
            found[str(name)] = tuple(numbers)
    return {} if any(0 in numbers for numbers in found.values()) else found


def _classes_by_regions(regions: Mapping[str, tuple[int, ...]], task: Task) -> dict[int, int]:
    values = {}
    for number in sorted({number for found in regions.values() for number in found}):
        mine = {name for name, found in regions.items() if number in found}
        fits = [c for c in task.classes if mine == {r for r in regions if c in task.scored_regions[r]}]
        if len(fits) == 1:
            values[number] = task.classes[fits[0]]
    return values


def _meaning(name: str, known: Mapping[str, Any]) -> str | None:
    """Return which of the task's names this one means."""
    plain = _plain(name)
    same = next((group for group in _SYNONYMS if plain in group), {plain})
    return next((ours for ours in known if _plain(ours) == plain), None) or next(
        (ours for ours in known if _plain(ours) in same), None
    )


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())

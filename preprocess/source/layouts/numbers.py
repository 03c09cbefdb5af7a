"""What a `dataset.json` of nnU-Net says about its label numbers, if the task knows every name in it."""

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
"""Names that mean the same class or region, in lower case and reduced to letters and digits."""
_LARGEST = 255


def read_dataset(root: str) -> dict[str, Any]:
    """Return the keys of the `dataset.json` in a folder; empty if there is none that can be read."""
    try:
        values = json.loads((Path(root) / DATASET).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def numbering_of(root: str, task: Task) -> LabelConvention | None:
    """Return what the `dataset.json` in a folder says about label numbers, in classes of the task.

    `labels` maps a name to one or several numbers (in version 1 of the format, a number to a name). If any name has
    several numbers, all names are regions, and a number means the class that is in exactly those regions.

    Returns
    -------
    LabelConvention or None
        None if the file has none, or has a name that the task does not know; then the user must name the convention.
    """
    labels = _numbers_by_name(read_dataset(root).get("labels"))
    has_regions = any(len(numbers) > 1 for numbers in labels.values())
    named: dict[str, tuple[int, ...]] = {}
    for name, numbers in labels.items():
        ours = _meaning(name, task.scored_regions if has_regions else task.classes)
        if ours is None or ours in named:
            return None
        named[ours] = numbers
    by_class = [(numbers[0], name) for name, numbers in named.items()]
    pairs = _classes_by_regions(named, task) if has_regions else by_class
    names = dict(pairs)
    if not len(pairs) == len(names) == len(set(names.values())) or not all(names.values()) or not names:
        return None
    return LabelConvention(DATASET, {number: task.classes[name] for number, name in names.items()}, names)


def _numbers_by_name(labels: Any) -> dict[str, tuple[int, ...]]:
    """Return the numbers by name, without the background; empty if this is not such a mapping."""
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


def _classes_by_regions(regions: Mapping[str, tuple[int, ...]], task: Task) -> list[tuple[int, str]]:
    """Return the class of each number; empty unless exactly one class is in just the regions that have the number."""
    pairs = []
    for number in sorted({number for found in regions.values() for number in found}):
        mine = {name for name, found in regions.items() if number in found}
        fits = [c for c in task.classes if mine == {r for r in regions if c in task.scored_regions[r]}]
        pairs.append((number, fits[0] if len(fits) == 1 else ""))
    return pairs


def _meaning(name: str, known: Mapping[str, Any]) -> str | None:
    """Return which of the task's names this one stands for."""
    plain = _plain(name)
    same = next((group for group in _SYNONYMS if plain in group), {plain})
    return next((ours for ours in known if _plain(ours) == plain), None) or next(
        (ours for ours in known if _plain(ours) in same), None
    )


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())

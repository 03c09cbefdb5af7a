"""The vocabulary: modalities, their aliases, combinations of them, label classes and regions.

Modalities are named outside and ordered inside: every tensor and array has them in the order of `MODALITIES`.
"""

from collections.abc import Iterable

from preprocess.errors import InputError

MODALITIES = ("flair", "t1", "t1ce", "t2")

ALIASES = {
    "flair": "flair", "t2f": "flair", "t2-flair": "flair", "t2flair": "flair",
    "t1": "t1", "t1w": "t1", "t1n": "t1",
    "t1ce": "t1ce", "t1c": "t1ce", "t1gd": "t1ce", "t1contrast": "t1ce",
    "t2": "t2", "t2w": "t2",
}  # fmt: skip
"""Lower-case name used by a data set -> our name."""

LABELS = {"NCR": 1, "ED": 2, "ET": 3}
"""Label classes inside the program: necrotic core, oedema, enhancing tumour; 0 is background."""

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
"""Evaluated regions as unions of label classes, nested: ET in TC in WT. The order of every region axis."""

PAINT = {"WT": "ED", "TC": "NCR", "ET": "ET"}
"""Class of a label map by the region that it is painted with, in the order of painting: later over earlier."""

MODALITY_NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
CLASS_NAMES = {"NCR": "necrotic core", "ED": "oedema", "ET": "enhancing tumour"}
REGION_NAMES = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}
"""What people read in reports and messages."""

Subset = tuple[str, ...]
"""A non-empty combination of modalities, in the order of `MODALITIES`."""

SUBSET_ORDER = (
    "t2", "t1ce", "t1", "flair",
    "t1ce+t2", "t1+t1ce", "flair+t1", "t1+t2", "flair+t2", "flair+t1ce",
    "flair+t1+t1ce", "flair+t1+t2", "flair+t1ce+t2", "t1+t1ce+t2",
    "flair+t1+t1ce+t2",
)  # fmt: skip
"""The 15 combinations by their canonical names, in the order in which the field prints its tables."""


def modality(name: str) -> str:
    """Return our name of a modality given by any alias, in any case.

    Raises
    ------
    InputError
        If the name is not known; the message lists the names that are.
    """
    try:
        return ALIASES[name.strip().lower()]
    except KeyError:
        allowed = ", ".join(ALIASES)
        raise InputError(f"unknown modality {name!r}; allowed: {allowed}") from None


def subset(names: str | Iterable[str]) -> Subset:
    """Return the combination named by `"flair+t1ce"` or by several names, in canonical order without repeats.

    Raises
    ------
    InputError
        If it is empty or names an unknown modality.
    """
    parts = names.replace(",", "+").split("+") if isinstance(names, str) else list(names)
    found = {modality(part) for part in parts if part.strip()}
    if not found:
        raise InputError(f"no modality in {names!r}; give at least one of {', '.join(MODALITIES)}, joined by '+'")
    return tuple(m for m in MODALITIES if m in found)


def subset_name(names: str | Iterable[str]) -> str:
    """Return the canonical name of a combination: `"t1ce,FLAIR"` gives `"flair+t1ce"`."""
    return "+".join(subset(names))


def all_subsets() -> tuple[Subset, ...]:
    """Return the 15 non-empty combinations in the order of the field."""
    return tuple(subset(name) for name in SUBSET_ORDER)


def display_name(name: str) -> str:
    """Return a combination as people write it: `FLAIR + T1ce`."""
    return " + ".join(MODALITY_NAMES.get(part, part) for part in name.split("+"))

"""Which prediction belongs to which reference, whatever the two folders call their files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ccsd.errors import UsageError
from preprocess.modalities import ALIASES, SUBSET_ORDER
from preprocess.names import check_case_name
from preprocess.source.nifti import SUFFIXES

_LABEL_WORDS = (
    r"(?:seg|segm|segmentation|label|labels|gt|truth|ref|reference|pred|prediction|mask|ensemble|glistrboost)"
)
_LABEL_ENDING = re.compile(rf"(?:^|[-_.]){_LABEL_WORDS}$", re.IGNORECASE)
_MOST_NAMED = 5
GIVEN = "given"
"""Stands for the combination where none is known."""


@dataclass(frozen=True)
class Pair:
    """One case: the segmentation to score and the one to score it against."""

    case: str
    prediction: Path
    reference: Path


def find_subsets(folder: Path) -> dict[str, Path]:
    """Return the folders of predictions by combination of modalities, or the folder itself as `GIVEN`."""
    found = {name: folder / name for name in SUBSET_ORDER if (folder / name).is_dir()}
    return found or {GIVEN: folder}


def find_segmentations(folder: Path) -> dict[str, Path]:
    """Return the segmentations at any depth below a folder by case.

    A case is the file's name without its ending and without a word like `seg`, `pred` or `label` at its end; where
    nothing is left, the name of its folder. Images, whose names end in a modality's name, are left out.

    Raises
    ------
    UsageError
        If the folder is missing, holds no segmentation, or has two for one case.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give a folder with one .nii or .nii.gz file per case")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.name.endswith(SUFFIXES) and not p.name.startswith(".")):
        case = case_name(path)
        if case is None:
            continue
        check_case_name(case, path)
        if case in found:
            raise UsageError(f"two segmentations for case {case}: {found[case]} and {path}; keep one of them")
        found[case] = path
    if not found:
        raise UsageError(f"{folder}: no segmentation found; expected one .nii or .nii.gz file per case")
    return found


def case_name(path: Path) -> str | None:
    """Return the case that a segmentation is of, or None for the image of a modality."""
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    if re.split(r"[-_.]", stem)[-1].lower() in ALIASES:
        return None
    while shorter := _LABEL_ENDING.sub("", stem) if _LABEL_ENDING.search(stem) else "":
        stem = shorter
    return path.parent.name if _LABEL_ENDING.fullmatch(stem) else stem


def match(
    predictions: Mapping[str, Path], references: Mapping[str, Path], *, partial: bool = False
) -> tuple[list[Pair], list[str]]:
    """Pair predictions with references, and name the predictions that have no reference.

    Names that are not equal still match when exactly one prediction's name begins with the reference's name, or the
    other way round, up to `-`, `_` or `.`. `partial` leaves references without a prediction out.

    Raises
    ------
    UsageError
        If a reference has no prediction: leaving such cases out unasked would make the means too good.
    """
    pairs, missing = [], []
    for case, reference in references.items():
        candidates = [case] if case in predictions else [name for name in predictions if _related(name, case)]
        if len(candidates) == 1:
            pairs.append(Pair(case, predictions[candidates[0]], reference))
        elif candidates or not partial:
            missing.append(case)
    if missing or not pairs:
        raise UsageError(
            f"{len(missing or references)} of {len(references)} references have no prediction, or several that fit: "
            f"{_some(missing or list(references))}; predictions found: {_some(list(predictions))}. Name the files "
            "after the cases, or leave such cases out with --partial, e.g. to score predictions of the test cases "
            "against the whole data set"
        )
    used = {pair.prediction for pair in pairs}
    return pairs, [name for name, path in predictions.items() if path not in used]


def _related(name: str, other: str) -> bool:
    short, long = sorted((name, other), key=len)
    return long.startswith(short) and long[len(short) : len(short) + 1] in ("-", "_", ".")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    return shown + (f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")

"""Find segmentations in folders, whatever the files are called, and pair predictions with references."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ccsd.errors import UsageError
from preprocess.errors import InputError, first_few
from preprocess.files import check_case_name
from preprocess.source import nifti
from preprocess.source.layouts import IGNORED, UNREAD, survey
from preprocess.source.layouts.own_names import GENERIC, is_foreign
from preprocess.task import ALIASES, Task

_LABEL_WORDS = (
    r"(?:seg|segm|segmentation|label|labels|gt|truth|ref|reference|pred|prediction|mask|ensemble|glistrboost)"
)
_LABEL_ENDING = re.compile(rf"(?:^|[-_.]){_LABEL_WORDS}$", re.IGNORECASE)
UNNAMED = "unknown"
"""The combination of segmentations whose folder does not name one."""


@dataclass(frozen=True)
class Segmentation:
    """A file, its case, and its label convention, if the layout specifies it."""

    case: str
    path: Path
    numbering: str | None = None


@dataclass(frozen=True)
class Pair:
    """One case: the segmentation to score and the one to score it against."""

    case: str
    prediction: Segmentation
    reference: Segmentation


def find_subsets(folder: Path, task: Task) -> dict[str, Path]:
    """Return the folders of predictions by combination of modalities, or the folder itself as `UNNAMED`.

    Raises
    ------
    UsageError
        If two folders are for the same combination.
    """
    found: dict[str, Path] = {}
    for path in _folders(folder):
        if (name := _combination(path.name, task)) is None:
            continue
        if name in found:
            raise UsageError(f"{found[name]} and {path} are the same combination {name}; keep one of them")
        found[name] = path
    return {name: found[name] for name in task.ordered_subsets(found)} or {UNNAMED: folder}


def unknown_folders(folder: Path, task: Task) -> list[Path]:
    """Return NIfTI files, and folders that contain some, beside folders of combinations; empty if there are none."""
    named = {path.name for path in _folders(folder) if _combination(path.name, task)}
    others = [path for path in sorted(folder.iterdir()) if path.name not in named] if named else []
    return [path for path in others if nifti.stem(path) or next(path.glob("**/*.nii*"), None)]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _combination(name: str, task: Task) -> str | None:
    """Return the canonical name of a combination, whatever the order and the spelling of its sequences."""
    try:
        return task.subset_name(name)
    except InputError:
        return None


def find_segmentations(folder: Path, task: Task, layout: str | None = None) -> dict[str, Segmentation]:
    """Return the segmentations at any depth below a folder, by case.

    Where a layout specifies which file is the segmentation of a case, that file is used. Elsewhere, the case is the
    file's name without its suffix and without a final word such as `seg`, `pred` or `label`; if nothing is left, it is
    the name of the folder. Images, files that a layout ignores, and files whose names refer to the brain are left out.

    Raises
    ------
    UsageError
        If the folder is missing, has no segmentation, or has two for one case.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give a folder with one .nii or .nii.gz file per case")
    found: dict[str, Segmentation] = {}
    files = survey([folder], task, layout).files
    if unread := [str(file.path) for file in files if file.role == UNREAD]:
        print(f"{folder}: not read, because the format is not NIfTI: {first_few(unread, 3)}", file=sys.stderr)
    for file in files:
        path, by_layout = file.path, file.layout not in ("", GENERIC.name)
        case = file.case if by_layout else case_name(path, task)
        if case is None or file.role in (*task.modalities, IGNORED, UNREAD) or "+" in file.role:
            continue
        check_case_name(case, path)
        if case in found:
            raise UsageError(f"two segmentations for case {case}: {found[case].path} and {path}; keep one of them")
        found[case] = Segmentation(case, path, file.numbering if by_layout else None)
    if not found:
        raise UsageError(f"{folder}: no segmentation found; expected one .nii or .nii.gz file per case")
    return found


def case_name(path: Path, task: Task) -> str | None:
    """Return the case of a segmentation, or None if the file is an image or not of a tumour."""
    stem = nifti.stem(path) or path.name
    if re.split(r"[-_.]", stem)[-1].lower() in (*ALIASES, *task.modalities) or is_foreign(stem, task):
        return None
    while shorter := _LABEL_ENDING.sub("", stem) if _LABEL_ENDING.search(stem) else "":
        stem = shorter
    return path.parent.name if _LABEL_ENDING.fullmatch(stem) else stem


def match(
    predictions: Mapping[str, Segmentation], references: Mapping[str, Segmentation], *, partial: bool = False
) -> tuple[list[Pair], list[str]]:
    """Pair predictions with references, and name the predictions that have no reference.

    Names that are not equal still match if exactly one prediction's name begins with the reference's name, or vice
    versa, up to `-`, `_` or `.`, and it is not the name of another reference. `partial` leaves out references without
    a prediction.

    Raises
    ------
    UsageError
        If a reference has no prediction (leaving out such cases unasked would make the means too good), or if a
        prediction matches several references.
    """
    pairs, missing = [], []
    others = [name for name in predictions if name not in references]
    for case, reference in references.items():
        candidates = [case] if case in predictions else [name for name in others if _related(name, case)]
        if len(candidates) == 1:
            pairs.append(Pair(case, predictions[candidates[0]], reference))
        elif candidates or not partial:
            missing.append(case)
    if missing or not pairs:
        raise UsageError(
            f"{len(missing or references)} of {len(references)} references have no prediction, or several that match: "
            f"{first_few(missing or list(references))}; predictions found: {first_few(list(predictions))}. "
            "Name the files after the cases, or leave out such cases with --partial, e.g. to score predictions of the "
            "test cases against the whole data set"
        )
    used: dict[str, str] = {}
    for pair in pairs:
        if pair.prediction.case in used:
            raise UsageError(
                f"{pair.prediction.path} matches the references {used[pair.prediction.case]} and {pair.case}; "
                "keep one reference per case, or name the prediction after its reference"
            )
        used[pair.prediction.case] = pair.case
    return pairs, [name for name in predictions if name not in used]


def _related(name: str, other: str) -> bool:
    short, long = sorted((name, other), key=len)
    return long.startswith(short) and long[len(short) : len(short) + 1] in ("-", "_", ".")

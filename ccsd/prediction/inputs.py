"""Which cases a folder holds, and which of a case's sequences are used."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ccsd.errors import UsageError
from preprocess.layouts import CaseFiles, discover
from preprocess.modalities import ALIASES, MODALITIES, Subset, subset

NIFTI = (".nii", ".nii.gz")


def find_cases(folder: Path) -> list[CaseFiles]:
    """Return the cases at or below a folder, without their segmentations: prediction must not see those.

    Raises
    ------
    UsageError
        If there is no image whose name says which sequence it is.
    """
    if folder.is_file():
        raise UsageError(f"{folder}: is a file; give the folder of a case, or a folder of such folders")
    found = [replace(case, label=None) for case in discover(folder)]
    if not found:
        raise UsageError(
            f"{folder}: no sequence recognised; file names must end in one of {', '.join(ALIASES)} before .nii or "
            ".nii.gz, for example PATIENT_flair.nii.gz"
        )
    return found


def choose(case: CaseFiles, wanted: str | None) -> tuple[Subset, Subset]:
    """Return the sequences to use and those that are not there.

    Parameters
    ----------
    case
        The files of one case.
    wanted
        Combination asked for; without one everything that is there is used.

    Raises
    ------
    UsageError
        If a sequence that was asked for is not there.
    """
    there = subset(case.images)
    missing = tuple(name for name in MODALITIES if name not in there)
    if wanted is None:
        return there, missing
    used = subset(wanted)
    absent = [name for name in used if name in missing]
    if absent:
        raise UsageError(f"{case.case}: has no {' and no '.join(absent)}, which -m asks for; it has {', '.join(there)}")
    return used, missing


def output_path(out: Path, case: str, cases: Sequence[CaseFiles]) -> Path:
    """Return where a case's segmentation goes: `out` itself when it names a NIfTI file, else a file below it.

    Raises
    ------
    UsageError
        If `out` is one file but there are several cases.
    """
    if not out.name.endswith(NIFTI):
        return out / f"{case}.nii.gz"
    if len(cases) > 1:
        raise UsageError(f"{out}: one file for {len(cases)} cases; give a folder")
    return out

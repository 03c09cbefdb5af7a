"""Which cases a folder holds, and which of a case's sequences are used."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ccsd.errors import UsageError
from preprocess.modalities import ALIASES, MODALITIES, Subset, subset
from preprocess.source.layouts import CaseFiles, discover, group, passed_over

NIFTI = (".nii", ".nii.gz")
_NAMING = f"file names must end in one of {', '.join(ALIASES)} before .nii or .nii.gz, for example PATIENT_flair.nii.gz"


def find_cases(sources: Sequence[Path]) -> list[CaseFiles]:
    """Return the cases that folders and files hold, without their segmentations: prediction must not see those.

    Parameters
    ----------
    sources
        Folders of cases or with such folders below them, and files; files are put together to cases by their names.

    Raises
    ------
    UsageError
        If a file's name does not say which sequence it is, two cases have the same name, or there is none.
    """
    files = [path for path in sources if not path.is_dir()]
    for path in files:
        _check_file(path)
    found = [case for folder in sources if folder.is_dir() for case in discover(folder)] + group(files)
    note = passed_over(sources)
    if not found:
        about = f". {note[0].upper()}{note[1:]}" if note else ""
        raise UsageError(f"{', '.join(str(path) for path in sources)}: no sequence recognised; {_NAMING}{about}")
    if note:
        print(f"note: {note}", file=sys.stderr)
    twice = [name for name, count in Counter(case.case for case in found).items() if count > 1]
    if twice:
        raise UsageError(f"{', '.join(twice)}: found in several of the inputs; segment them one after another")
    return [replace(case, label=None) for case in found]


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"{path}: no such file or folder")
    if not path.name.endswith(NIFTI) or not group([path]):
        raise UsageError(f"{path}: the name does not say which sequence it is; {_NAMING}")


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

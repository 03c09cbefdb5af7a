"""How every file of a source is used: the table `files.tsv`, and the summary that commands print."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from preprocess.errors import InputError, counted, first_few
from preprocess.files import write_text
from preprocess.source.layouts import (
    IGNORED,
    NO_SEQUENCE,
    ORPHAN,
    UNKNOWN,
    UNREAD,
    UNUSED,
    FileRole,
    Survey,
    survey_folder,
)
from preprocess.source.layouts.layout import SEGMENTATION
from preprocess.task import Task

FILES_TABLE = "files.tsv"
_COLUMNS = ("path", "case", "role", "layout", "pattern")
_UNUSED = {
    UNKNOWN: "not used, because the name matches no layout (docs/how-to/data.md: My data set is not listed)",
    ORPHAN: "not used, because a segmentation without images is not a case",
    UNREAD: "not read, because the format is not NIfTI; unpack it, or convert it to .nii.gz (DICOM: dcm2niix; .mha, "
    ".nrrd: SimpleITK)",
    IGNORED: "not used, because the layout ignores it",
}


def find_cases(
    src: Path,
    task: Task,
    layout: str | None = None,
    labels: str | None = None,
    record: Path | None = None,
) -> Survey:
    """Return the cases below a folder and the role of every file.

    Parameters
    ----------
    task
        The segmentation task.
    layout
        Name or file of the layout; detected by default.
    labels
        Label convention of all segmentations, instead of those of the layouts.
    record
        Folder for `files.tsv`, which is written even if no case is found.

    Raises
    ------
    InputError
        If the folder is missing or contains no case, `survey` rejects it, or there is no such label convention.
    """
    if labels is not None:
        task.convention(labels)
    found = survey_folder(src, task, layout)
    if record is not None:
        write_files(record, found.files)
    if not found.cases:
        more = "".join(f"; {line}" for line in summary(found.files, task)[1:])
        raise InputError(
            f"{src}: no case found; expected files like CASE_flair.nii.gz, CASE-t2f.nii.gz or imagesTr/CASE.nii.gz "
            f"in or below this folder (docs/reference/data.md shows every layout){more}"
        )
    if labels is None:
        return found
    return Survey([replace(case, numbering=labels, declared=None) for case in found.cases], found.files)


def write_files(folder: Path, files: Sequence[FileRole]) -> None:
    """Write `files.tsv`: a line per image file, with its role and the pattern that determined it."""
    rows = [_COLUMNS, *((str(f.path), f.case, f.role, f.layout, f.pattern) for f in files)]
    write_text(folder / FILES_TABLE, "".join("\t".join(map(_cell, row)) + "\n" for row in rows))


def _cell(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def read_files(folder: Path) -> list[FileRole]:
    """Return what `write_files` wrote; empty if there is no such table."""
    path = folder / FILES_TABLE
    if not path.is_file():
        return []
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [FileRole(Path(row[0]), *row[1:]) for row in rows if len(row) == len(_COLUMNS)]


def summary(files: Sequence[FileRole], task: Task) -> list[str]:
    """Return a report on a source: cases by layout and by sequence, and which files are not used."""
    used = [file for file in files if file.role not in UNUSED]
    layouts = Counter({file.case: file.layout for file in used}.values())
    pairs = {(file.case, role) for file in used for role in file.role.split("+")}
    counts = Counter(role for _, role in pairs)
    total = len({file.case for file in used})
    names = ", ".join(f"{name} ({number})" for name, number in sorted(layouts.items()))
    modalities = task.modalities
    listed = ", ".join(f"{name} {counts[name]}" for name in (*modalities, SEGMENTATION))
    lines = [f"{counted(total, 'case')}, by layout {names or 'none'}; files found: {listed}"]
    lines += [f"no case has {name}" for name in modalities if total and not counts[name]]
    return lines + unused(files)


def unused(files: Sequence[FileRole]) -> list[str]:
    """Return a report on files that no case uses."""
    foreign = [file for file in files if file.role == IGNORED and NO_SEQUENCE in file.pattern]
    lines = []
    for role, text in _UNUSED.items():
        if some := [str(file.path) for file in files if file.role == role and file not in foreign]:
            lines.append(f"{text}: {first_few(some, 3)}")
    if foreign:
        reason = NO_SEQUENCE + foreign[0].pattern.partition(NO_SEQUENCE)[2]
        lines.append(f"not used, because it is {reason}: {first_few([str(file.path) for file in foreign], 3)}")
    return lines


class _Meant(Protocol):
    @property
    def meant(self) -> str: ...


def task_hint(cases: Iterable[_Meant]) -> list[str]:
    """Return a hint if, by their layouts, most cases belong to another task."""
    counts = Counter(case.meant for case in cases)
    name, number = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return [f"{number} of {counts.total()} cases belong to the task {name}: --task {name}"] if name else []

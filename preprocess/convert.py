"""Conversion of a data set: every new or changed case, independently of the others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

from preprocess.case import prepare, stored_patient
from preprocess.checks import check_names
from preprocess.dataset import REJECTED, drop_outdated_rejections, drop_rejection, write_rejection
from preprocess.errors import InputError
from preprocess.files import make_folder, sweep
from preprocess.parallel import run_parallel, select_part, track
from preprocess.source.accounts import find_cases, write_files
from preprocess.source.layouts import CaseFiles
from preprocess.store.reader import CaseStore, list_cases
from preprocess.store.write import write_case
from preprocess.task import Task


@dataclass(frozen=True)
class CaseConversion:
    """The outcome of one case.

    Attributes
    ----------
    message
        Reason for rejection, or warnings.
    died
        Whether the case was rejected because it killed the process; more memory may be all it needs.
    meant
        Task that its layout belongs to, if the case was rejected because of that.
    """

    case: str
    status: Literal["converted", "unchanged", "rejected"]
    message: str = ""
    died: bool = False
    meant: str = ""


def convert(
    src: Path,
    dest: Path,
    *,
    task: Task,
    workers: int = 1,
    part: tuple[int, int] = (1, 1),
    allow: Sequence[str] = (),
    layout: str | None = None,
    labels: str | None = None,
) -> list[CaseConversion]:
    """Convert the cases below `src` into stores below `dest`, in parallel over cases; return the outcome of each.

    A store whose source files, task and label numbers have not changed is kept. A case that cannot be converted leaves
    a note below `dest/rejected` instead of a store; the others are converted all the same. `dest/files.tsv` has the
    role of every file.

    Parameters
    ----------
    workers
        Number of processes; 1 converts in this one.
    part
        (I, N): convert only the I-th of N parts of the sorted cases. Parts may run at the same time.
    allow
        Checks that do not reject a case.
    layout
        Name or file of the layout of the source; detected by default.
    labels
        Label convention of all segmentations, instead of those of the layouts.
    task
        The segmentation task.

    Raises
    ------
    InputError
        If the folder is missing or contains no case, or an option is wrong.
    """
    check_names(allow)
    found = find_cases(src, task, layout, labels)
    _reject_other_task(dest, task)
    mine = select_part(found.cases, part)
    make_folder(dest)
    for folder in (dest, dest / REJECTED):
        sweep(folder)
    drop_outdated_rejections(dest)
    jobs = [(files, dest, tuple(sorted(allow))) for files in mine]
    outcomes = track(run_parallel(_convert_case, jobs, workers, _died), len(jobs), "convert")
    made = sorted(outcomes, key=lambda item: item.case)
    write_files(dest, found.files)
    return made


def _reject_other_task(dest: Path, task: Task) -> None:
    """Reject a mixture of tasks before anything is written. Cases of an older task of the same name are replaced."""
    stored = _stored_task(dest)
    if stored and stored != task.name:
        raise InputError(
            f"{dest}: contains cases of the task {stored}, not {task.name}; tasks cannot be mixed, convert into "
            "another folder"
        )


def _stored_task(dest: Path) -> str:
    """Return the name of the task of the stores in a folder; empty if none can be read."""
    try:
        return CaseStore(dest, list_cases(dest)[0]).meta.task.name
    except (InputError, IndexError):
        return ""


_Job = tuple[CaseFiles, Path, tuple[str, ...]]


def _died(job: _Job) -> CaseConversion:
    outcome = _reject(job[1], job[0], "the process died while converting it; is there enough memory?")
    return replace(outcome, died=True)


def _convert_case(job: _Job) -> CaseConversion:
    files, dest, allow = job
    try:
        if _is_current(files, dest, allow):
            drop_rejection(dest, files.case)  # left by a conversion that was killed between store and note
            return CaseConversion(files.case, "unchanged")
        prepared = prepare(files, allow=allow)
    except InputError as error:
        return _reject(dest, files, str(error).removeprefix(f"{files.case}: "))
    except Exception as error:  # noqa: BLE001 - a case that no check foresaw must not cost the others
        return _reject(dest, files, f"unexpected {type(error).__name__}: {error}; please report it")
    write_case(dest, prepared)
    drop_rejection(dest, files.case)
    return CaseConversion(files.case, "converted", "; ".join(prepared.meta.warnings))


def _is_current(files: CaseFiles, dest: Path, allow: tuple[str, ...]) -> bool:
    """Return whether the case's store was made from exactly these files, with the same checks allowed."""
    try:
        meta = CaseStore(dest, files.case).meta
    except InputError:
        return False
    if files.problem:
        return False
    paths = {**files.images, **({"seg": files.label} if files.label else {})}
    read_as = (files.task.digest, files.layout, files.convention, stored_patient(files), allow)
    if read_as != (meta.task.digest, meta.layout, meta.label_convention, meta.patient, meta.allow):
        return False
    if set(paths) != set(meta.sources):
        return False
    digests = {path: _digest(path) for path in files.paths}
    return all(digests[path] == meta.sources[name].sha256 for name, path in paths.items())


def _digest(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _reject(dest: Path, files: CaseFiles, reason: str) -> CaseConversion:
    write_rejection(dest, files.case, reason, files.paths)
    return CaseConversion(files.case, "rejected", reason, meant=files.meant)

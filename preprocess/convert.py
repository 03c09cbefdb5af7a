"""Conversion of a data set: every case that is missing or changed, whatever becomes of the others."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar

from preprocess.case import Prepared, prepare
from preprocess.checks import check_names
from preprocess.errors import InputError
from preprocess.files import make_folder, remove, sweep, write_text
from preprocess.parallel import run_parallel, track
from preprocess.source.layouts import CaseFiles, discover
from preprocess.store.meta import describe
from preprocess.store.reader import open_case, store_path
from preprocess.store.write import write_case

__all__ = ["Outcome", "Prepared", "Summary", "convert", "prepare", "read_refusals"]

REFUSED = "refused"
_Case = TypeVar("_Case")
_NO_NOTE = (KeyError, OSError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Outcome:
    """What became of one case; `message` holds the reason of a refusal, or warnings.

    `died` tells that the case was refused because it killed the process: more memory may be all it takes.
    """

    case: str
    status: Literal["converted", "unchanged", "refused"]
    message: str = ""
    died: bool = False


@dataclass
class Summary:
    """What became of all cases."""

    outcomes: list[Outcome] = field(default_factory=list)

    def named(self, status: str) -> list[Outcome]:
        """Return the outcomes of one kind, sorted by case."""
        return sorted((o for o in self.outcomes if o.status == status), key=lambda o: o.case)


def convert(
    src: Path, dest: Path, *, workers: int = 1, part: tuple[int, int] = (1, 1), allow: Sequence[str] = ()
) -> Summary:
    """Convert the cases below `src` into stores below `dest`, in parallel over cases.

    A store whose source files have not changed is left alone. A case that cannot be converted leaves a note below
    `dest/refused` instead of a store, and costs none of the others.

    Parameters
    ----------
    workers
        Processes; 1 converts in this one.
    part
        (I, N): convert only the I-th of N parts of the sorted cases. Parts may run at the same time.
    allow
        Checks that do not refuse a case.

    Raises
    ------
    InputError
        If the folder is missing or holds no case, or an option is wrong.
    """
    check_names(allow)
    mine = select_part(_found(src), part)
    make_folder(dest)
    for folder in (dest, dest / REFUSED):
        sweep(folder)
    _drop_outdated_notes(dest)
    jobs = [(files, dest, tuple(sorted(allow))) for files in mine]
    return Summary(list(track(run_parallel(_convert_case, jobs, workers, _died), len(jobs), "convert")))


def select_part(cases: Sequence[_Case], part: tuple[int, int]) -> list[_Case]:
    """Return the I-th of N parts of the cases, in even and consecutive shares; I counts from 1."""
    number, total = part
    if not 1 <= number <= total:
        raise InputError(f"--part {number}/{total}: give I/N with I from 1 to N")
    first, last = ((number + k) * len(cases) // total for k in (-1, 0))
    return list(cases[first:last])


def read_refusals(dest: Path) -> dict[str, str]:
    """Return the reason by case of the cases that were refused."""
    found = {}
    for path in sorted((dest / REFUSED).glob("*.json")):
        with suppress(*_NO_NOTE):
            note = json.loads(path.read_text(encoding="utf-8"))
            found[str(note["case"])] = str(note["reason"])
    return found


def is_settled(dest: Path, case: str) -> bool:
    """Tell whether a conversion has left a store or a refusal of the case."""
    return store_path(dest, case).exists() or _note(dest, case).exists()


def _found(src: Path) -> list[CaseFiles]:
    cases = discover(src)
    if not cases:
        raise InputError(
            f"{src}: no case found; expected files like CASE_flair.nii.gz, CASE-t2f.nii.gz or imagesTr/CASE.nii.gz "
            "in this folder or below it (docs/data.md shows every layout)"
        )
    return cases


_Job = tuple[CaseFiles, Path, tuple[str, ...]]


def _died(job: _Job) -> Outcome:
    outcome = _refuse(job[1], job[0], "the process died while converting it; is there enough memory?")
    return replace(outcome, died=True)


def _convert_case(job: _Job) -> Outcome:
    files, dest, allow = job
    try:
        if _is_current(files, dest, allow):
            return Outcome(files.case, "unchanged")
        prepared = prepare(files, allow=allow)
    except InputError as error:
        return _refuse(dest, files, str(error).removeprefix(f"{files.case}: "))
    except Exception as error:  # noqa: BLE001 - a case that no check foresaw must not cost the others
        return _refuse(dest, files, f"unforeseen {type(error).__name__}: {error}; please report it")
    meta = describe(prepared, allow)
    write_case(dest, prepared, meta)
    remove(_note(dest, files.case))
    return Outcome(files.case, "converted", "; ".join(meta.warnings))


def _is_current(files: CaseFiles, dest: Path, allow: tuple[str, ...]) -> bool:
    """Return whether the case's store was made from these very files, with these checks off."""
    try:
        meta = open_case(dest, files.case).meta
    except InputError:
        return False
    paths = {**files.images, **({"seg": files.label} if files.label else {})}
    if files.problem or set(paths) != set(meta.sources) or allow != meta.allow:
        return False
    digests = {path: _digest(path) for path in files.paths}
    return all(digests[path] == meta.sources[name].sha256 for name, path in paths.items())


def _digest(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _refuse(dest: Path, files: CaseFiles, reason: str) -> Outcome:
    """Leave a note, and no store of an older source."""
    remove(store_path(dest, files.case))
    note = {"case": files.case, "reason": reason, "files": [str(path.absolute()) for path in files.paths]}
    write_text(_note(dest, files.case), json.dumps(note, indent=1) + "\n")
    return Outcome(files.case, "refused", reason)


def _drop_outdated_notes(dest: Path) -> None:
    """Forget the refusals of cases whose files have been taken away."""
    for path in (dest / REFUSED).glob("*.json"):
        with suppress(*_NO_NOTE):
            files = json.loads(path.read_text(encoding="utf-8"))["files"]
            if files and not any(Path(file).exists() for file in files):
                remove(path)


def _note(dest: Path, case: str) -> Path:
    return dest / REFUSED / f"{case}.json"

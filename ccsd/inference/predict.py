"""`ccsd predict INPUT OUT --model RUN [-m SUBSET]`: segment one case or many from whatever sequences they have."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ccsd.device import choose_device
from ccsd.errors import UsageError
from ccsd.inference.ensemble import load_ensemble, read_members
from ccsd.inference.finished import is_finished, record_file, taken_for
from ccsd.inference.options import Job, Options
from ccsd.inference.prediction import expect_again, segment
from ccsd.inference.table import forget_failure, note_failure, write_table
from ccsd.records import ExpectedDice
from preprocess.case import prepare
from preprocess.errors import RAW_SCANS, InputError
from preprocess.files import sweep
from preprocess.parallel import select_part
from preprocess.source import nifti
from preprocess.source.accounts import summary, unused
from preprocess.source.layouts import IGNORED, UNKNOWN, UNREAD, CaseFiles, survey
from preprocess.task import ALIASES, Subset, Task


def cases_to_predict(sources: Sequence[Path], task: Task, layout: str | None = None) -> list[CaseFiles]:
    """Return the cases that folders and files hold, without their segmentations: prediction must not see those.

    Parameters
    ----------
    sources
        Folders of cases or with such folders below them, and files; files are put together to cases by their names.
    task
        What the model was trained for.
    layout
        Name or file of the layout; found out by default.

    Raises
    ------
    UsageError
        If a file's name does not say which sequence it is, or there is no case.
    """
    if gone := [path for path in sources if not path.exists()]:
        raise UsageError(f"{gone[0]}: no such file or folder")
    found, naming = survey(sources, task, layout), _naming(task)
    named = {Path(os.path.abspath(path)) for path in sources}  # noqa: PTH100 - as `survey` names files
    foreign = [file.path for file in found.files if file.path in named and file.role == UNREAD]
    if foreign:
        raise UsageError(f"{foreign[0]}: only NIfTI is read; convert it to .nii.gz first, {RAW_SCANS}")
    lost = [file.path for file in found.files if file.path in named and file.role in (UNKNOWN, IGNORED)]
    if lost:
        raise UsageError(f"{lost[0]}: the name does not say which sequence it is; {naming}")
    if not found.cases:
        about = "".join(f". {line}" for line in unused(found.files))
        raise UsageError(f"{', '.join(str(path) for path in sources)}: no sequence recognised; {naming}{about}")
    for line in summary(found.files, task):
        print(f"note: {line}", file=sys.stderr)
    return [replace(case, label=None) for case in found.cases]


def _naming(task: Task) -> str:
    names = dict.fromkeys([*task.modalities, *(alias for alias, name in ALIASES.items() if name in task.sequences)])
    return (
        f"file names must end in one of {', '.join(names)} before .nii or .nii.gz, for example "
        f"PATIENT_{task.modalities[0]}.nii.gz"
    )


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
        If a sequence that was asked for is not there, or the files are of another task than the model.
    """
    task = case.task
    if case.meant:
        raise UsageError(
            f"{case.case}: laid out as {case.layout}, of the task {case.meant}, and the model is of {task.name}; use a "
            "model of that task, or, if it is meant, describe the files in a layout of your own (--layout)"
        )
    there = task.subset(case.images)
    missing = tuple(name for name in task.modalities if name not in there)
    if wanted is None:
        return there, missing
    used = task.subset(wanted)
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
    if not nifti.stem(out):
        return out / f"{case}.nii.gz"
    if len(cases) > 1:
        raise UsageError(f"{out}: one file for {len(cases)} cases; give a folder")
    return out


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    case: str
    path: Path
    used: Subset = ()
    missing: Subset = ()
    warnings: tuple[str, ...] = ()
    volumes_ml: dict[str, float] = field(default_factory=dict)
    """By region."""
    expected_dice: dict[str, ExpectedDice] = field(default_factory=dict)
    """By region, of models that are calibrated."""
    labels: str = ""
    """What each value in the file means."""
    error: str | None = None
    skipped: bool = False


def predict(
    sources: Sequence[Path], out: Path, models: Path | str | Sequence[Path | str], options: Options | None = None
) -> Iterator[Outcome]:
    """Segment cases and yield what became of each.

    A case that cannot be read does not stop the others; its outcome has an error, and no segmentation is written.
    Beside a segmentation `CASE.json` says which models made it, how, and what it shows; `predictions.tsv` in a folder
    has all cases, also when this is interrupted.

    Parameters
    ----------
    sources
        Folders of a case or with such folders, in any layout and naming; or files, several of one case or of many.
    out
        File (one case) or folder (`CASE.nii.gz` each) to write.
    models
        What `--model` takes, such as the folder of a finished training run; of several the mean of their
        probabilities is taken.
    options
        See `Options`.

    Raises
    ------
    UsageError
        If a model or an option cannot be used, models do not fit together, or no case is there.
    InputError
        If there is no such part of the cases.
    """
    options = options or Options()
    select_part((), options.part)  # refuses one that there is not, before any work
    members = read_members(models)
    task = members[0].config.task
    options.check(task)
    cases = cases_to_predict(sources, task, options.layout)
    own = select_part([(case, output_path(out, case.case, cases)) for case in cases], options.part)
    device = choose_device(options.device)
    job = Job.of(load_ensemble(members, device), device, options)
    for member in members:
        print(f"model: {member.where}, {member.record.origin}", file=sys.stderr)
    if job.note:
        print(f"note: {job.note}", file=sys.stderr)
    print(f"segmenting (cases: {len(own)}, device: {device.type})", file=sys.stderr, flush=True)
    folder = None if nifti.stem(out) else out
    sweep(folder or out.parent)
    try:
        for case, path in own:
            yield _outcome(case, path, job, folder)
    finally:
        if folder is not None:
            write_table(folder, [case.case for case in cases], task)


def _outcome(case: CaseFiles, path: Path, job: Job, folder: Path | None) -> Outcome:
    """Segment a case, unless that is done; in a folder, note why it failed."""
    made = {**job.made, "files": taken_for(case)}
    try:
        if job.options.skip_existing and is_finished(path, made, preview=job.options.preview):
            expect_again(path, job)
            outcome = Outcome(case.case, path, skipped=True, warnings=_unknown_origin(path))
        else:
            outcome = _predict_case(case, path, job, made)
    except (InputError, UsageError) as error:
        outcome = Outcome(case.case, path, error=str(error))
    if folder is not None and outcome.error:
        note_failure(folder, case.case, outcome.error)
    elif folder is not None:
        forget_failure(folder, case.case)
    return outcome


def _unknown_origin(path: Path) -> tuple[str, ...]:
    record = record_file(path)
    return () if record.exists() else (f"no {record.name} says what made {path.name}; remove it to segment again",)


def _predict_case(case: CaseFiles, path: Path, job: Job, made: dict[str, Any]) -> Outcome:
    options, task = job.options, job.ensemble.task
    used, _ = choose(case, options.subset)
    found = segment(job, prepare(case, used, allow=options.allow), made["files"])
    there = task.subset(case.images)
    missing = tuple(name for name in found.missing if name not in there or name in used)
    found = replace(found, missing=missing)  # without those that -m leaves out
    found.save(path, probabilities=options.probabilities, preview=options.preview)
    shown = found.volumes_ml, found.expected_dice, str(found.convention)
    return Outcome(case.case, path, found.used, missing, found.warnings, *shown)

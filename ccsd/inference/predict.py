"""`ccsd predict INPUT OUT --model RUN [-m SUBSET]`: segment one or many cases from the sequences they have."""

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
from ccsd.inference.prediction import segment, update_expected_dice
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
    """Return the cases in folders and files, without their segmentations, which prediction must not see.

    Parameters
    ----------
    sources
        Folders of cases, folders that contain such folders, and files. Files are grouped into cases by their names.
    task
        The task of the model.
    layout
        Name or file of the layout; detected by default.

    Raises
    ------
    UsageError
        If a file's name does not show which sequence it is, or there is no case.
    """
    if gone := [path for path in sources if not path.exists()]:
        raise UsageError(f"{gone[0]}: no such file or folder")
    found, naming = survey(sources, task, layout), _naming(task)
    named = {Path(os.path.abspath(path)) for path in sources}  # noqa: PTH100 - as `survey` names files
    foreign = [file.path for file in found.files if file.path in named and file.role == UNREAD]
    if foreign:
        raise UsageError(f"{foreign[0]}: only NIfTI is supported; convert it to .nii.gz first, {RAW_SCANS}")
    lost = [file.path for file in found.files if file.path in named and file.role in (UNKNOWN, IGNORED)]
    if lost:
        raise UsageError(f"{lost[0]}: the name does not show which sequence it is; {naming}")
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
    """Return the sequences to use and those that are missing.

    Parameters
    ----------
    case
        The files of one case.
    wanted
        The requested combination; None uses every available sequence.

    Raises
    ------
    UsageError
        If a requested sequence is missing, or the files belong to another task than the model.
    """
    task = case.task
    if case.meant:
        raise UsageError(
            f"{case.case}: has the layout {case.layout}, of the task {case.meant}, but the model is for {task.name}; "
            "use a model of that task, or, if this is intended, describe the files in your own layout (--layout)"
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
    """Return the path for a case's segmentation: `out` itself if it names a NIfTI file, else a file in it.

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
    """The result for one case."""

    case: str
    path: Path
    used: Subset = ()
    missing: Subset = ()
    warnings: tuple[str, ...] = ()
    volumes_ml: dict[str, float] = field(default_factory=dict)
    """By region."""
    expected_dice: dict[str, ExpectedDice] = field(default_factory=dict)
    """By region, if the models are calibrated."""
    labels: str = ""
    """What each value in the file means."""
    error: str | None = None
    skipped: bool = False


def predict(
    sources: Sequence[Path], out: Path, models: Path | str | Sequence[Path | str], options: Options | None = None
) -> Iterator[Outcome]:
    """Segment cases and yield the result of each.

    A case that cannot be read does not stop the others; its outcome has an error, and no segmentation is written.
    Beside a segmentation, `CASE.json` records which models made it, how, and what it shows. If the output is a folder,
    its `predictions.tsv` lists all cases, even after an interruption.

    Parameters
    ----------
    sources
        Folders of cases or folders that contain them, in any layout and naming; or files, of one case or of many.
    out
        File (one case) or folder (`CASE.nii.gz` each) to write.
    models
        What `--model` takes, such as the folder of a finished training run. With several, the mean of their
        probabilities is used.
    options
        See `Options`.

    Raises
    ------
    UsageError
        If a model or an option cannot be used, models do not fit together, or there is no case.
    InputError
        If there is no such part of the cases.
    """
    options = options or Options()
    select_part((), options.part)  # rejects a wrong part before any work is done
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
    """Segment a case unless that was done; in a folder, record why it failed."""
    made = {**job.made, "files": taken_for(case)}
    try:
        if job.options.skip_existing and is_finished(path, made, preview=job.options.preview):
            update_expected_dice(path, job)
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
    unknown = f"the origin of {path.name} is unknown, as it has no {record.name}; remove it to segment again"
    return () if record.exists() else (unknown,)


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

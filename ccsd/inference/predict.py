"""`ccsd predict INPUT OUT --model RUN [-m SUBSET]`: segment one case or many from whatever sequences they have."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccsd import __version__
from ccsd.device import choose_device
from ccsd.errors import UsageError
from ccsd.inference.case import in_mm, is_resampled, paint_tensor, segment_case
from ccsd.inference.ensemble import Ensemble, load_ensemble, read_members
from ccsd.inference.finished import is_finished, probabilities_file, record_file, taken_for, write_record
from ccsd.inference.labelmaps import write_labelmap
from ccsd.inference.sanity import background_tumour, oddities
from ccsd.metrics import clean_up
from preprocess.case import prepare, region_volumes
from preprocess.checks import check_names
from preprocess.errors import InputError
from preprocess.files import complete_or_absent
from preprocess.parallel import select_part
from preprocess.source import nifti
from preprocess.source.accounts import summary, unused
from preprocess.source.geometry import Geometry, to_source
from preprocess.source.layouts import IGNORED, UNKNOWN, UNREAD, CaseFiles, survey
from preprocess.task import ALIASES, Subset, Task

if TYPE_CHECKING:
    import torch

    from ccsd.config import Evaluation


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
        raise UsageError(f"{foreign[0]}: only NIfTI is read; convert it to .nii.gz first")
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
class Options:
    """How to predict."""

    subset: str | None = None
    """Combination to use; None uses every sequence that is there."""
    labels: str = "auto"
    """Label convention of the output; `auto` is that of the input's layout."""
    probabilities: bool = False
    """Also write the regions' probabilities."""
    flips: bool = False
    """Average over the 8 mirror images."""
    overlap: float | None = None
    """Share of a window that overlaps its neighbour, in [0, 1); None takes that of the evaluation."""
    cleanup: bool = False
    """Apply the clean-up of the task."""
    layout: str | None = None
    """Layout of the input; None finds it out."""
    allow: tuple[str, ...] = ()
    """Names of checks that do not refuse a case."""
    skip_existing: bool = False
    """Leave cases alone that the same model and options have segmented."""
    device: str | None = None
    """auto or cpu, as in `ccsd.device.choose_device`."""
    part: tuple[int, int] = (1, 1)
    """Of how many parts of the cases which one to segment, (I, N) with I from 1."""


@dataclass(frozen=True)
class Prediction:
    """What became of one case."""

    case: str
    path: Path
    used: Subset = ()
    missing: Subset = ()
    warnings: tuple[str, ...] = ()
    volumes_ml: dict[str, float] = field(default_factory=dict)
    """By region."""
    labels: str = ""
    """What each value in the file means."""
    error: str | None = None
    skipped: bool = False


def predict(
    sources: Sequence[Path], out: Path, models: Path | str | Sequence[Path | str], options: Options | None = None
) -> Iterator[Prediction]:
    """Segment cases and yield what became of each.

    A case that cannot be read does not stop the others; its prediction has an error and nothing is written for it.
    Beside a segmentation `CASE.json` says which models made it, and how.

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
    if options.overlap is not None and not 0 <= options.overlap < 1:
        raise UsageError(f"--overlap {options.overlap:g}: must be at least 0 and below 1, for example 0.25")
    select_part((), options.part)  # refuses one that there is not, before any work
    members = read_members(models)
    task = members[0].config.task
    if options.labels != "auto" and options.labels not in task.conventions:
        raise UsageError(f"--labels {options.labels}: unknown; allowed: auto, {', '.join(task.conventions)}")
    check_names(options.allow)
    cases = cases_to_predict(sources, task, options.layout)
    own = select_part([(case, output_path(out, case.case, cases)) for case in cases], options.part)
    device = choose_device(options.device)
    job = _job(load_ensemble(members, device), device, options)
    for member in members:
        print(f"model: {member.where}, {member.record.origin}", file=sys.stderr)
    print(f"segmenting (cases: {len(own)}, device: {device.type})", file=sys.stderr, flush=True)
    for case, path in own:
        made = {**job.made, "files": taken_for(case)}
        if options.skip_existing and is_finished(path, made):
            yield Prediction(case.case, path, skipped=True, warnings=_unknown_origin(path))
            continue
        try:
            prediction = _predict_case(case, path, job)
            _note(prediction, made, task)
        except (InputError, UsageError) as error:
            prediction = Prediction(case.case, path, error=str(error))
        yield prediction


@dataclass(frozen=True)
class _Job:
    ensemble: Ensemble
    device: "torch.device"
    options: Options
    settings: "Evaluation"
    made: dict[str, Any]
    """What decides the segmentations of all cases, for their records."""


def _job(ensemble: Ensemble, device: "torch.device", options: Options) -> _Job:
    settings = ensemble.settings.model_copy(update={"flips": options.flips})
    if options.overlap is not None:
        settings = settings.model_copy(update={"overlap": options.overlap})
    wanted = {
        "modalities": options.subset and ensemble.task.subset_name(options.subset),
        "labels": options.labels,
        "probabilities": options.probabilities,
        "flips": options.flips,
        "overlap": settings.overlap,
        "cleanup": options.cleanup,
        "layout": options.layout,
        "allow": sorted(options.allow),
    }
    models = [identity.model_dump(exclude_unset=True) for identity in ensemble.identities]
    return _Job(ensemble, device, options, settings, {"models": models, "options": wanted})


def _unknown_origin(path: Path) -> tuple[str, ...]:
    record = record_file(path)
    return () if record.exists() else (f"no {record.name} says what made {path.name}; remove it to segment again",)


def _note(prediction: Prediction, made: dict[str, Any], task: Task) -> None:
    """Write beside a segmentation how it was made and what it shows."""
    write_record(
        prediction.path,
        made,
        task=task.label,
        used=prediction.used,
        missing=prediction.missing,
        volumes_ml=prediction.volumes_ml,
        labels=prediction.labels,
        warnings=prediction.warnings,
        version=__version__,
    )


def _predict_case(case: CaseFiles, path: Path, job: _Job) -> Prediction:
    ensemble, options, task = job.ensemble, job.options, job.ensemble.task
    used, missing = choose(case, options.subset)
    prepared = prepare(case, used, allow=options.allow)
    missing += tuple(name for name in used if name not in prepared.meta.modalities)
    used = prepared.meta.modalities
    geometry = prepared.meta.geometry
    (regions,) = segment_case(ensemble, prepared.image, geometry.spacing, [used], job.settings, job.device)
    labels = paint_tensor(regions, task).cpu().numpy()
    if options.cleanup:
        labels = clean_up(labels, geometry.spacing, task)
    convention = task.output_convention(prepared.meta.label_convention)
    if options.labels != "auto":
        convention = task.convention(options.labels)
    if options.probabilities:
        _write_probabilities(path, regions.cpu().numpy(), geometry)
    write_labelmap(path, labels, geometry, convention)
    notes = [str(finding) for finding in prepared.findings if finding.check != "spacing"]  # which is fixed here
    notes += [*oddities(prepared), *background_tumour(prepared, used, labels)]
    if is_resampled(ensemble, geometry.spacing):
        own, training = in_mm(geometry.spacing), in_mm(ensemble.spacing)
        notes.append(f"voxels of {own} were resampled to the training's {training} and back")
    volumes = region_volumes(labels, geometry, task)
    return Prediction(case.case, path, used, missing, tuple(notes), volumes, str(convention))


def _write_probabilities(path: Path, probabilities: np.ndarray, geometry: Geometry) -> None:
    """Write X x Y x Z x R, the regions in the order of the task, beside the segmentation, whole or not at all."""
    volumes = np.stack([to_source(region, geometry) for region in probabilities], axis=-1)
    with complete_or_absent(probabilities_file(path)) as temporary:
        nifti.write(temporary, volumes, geometry.matrix, geometry.forms)

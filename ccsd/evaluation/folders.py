"""`ccsd evaluate --pred DIR --ref DIR --out DIR`: score any segmentations against references, without a model."""

import functools
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ccsd.config import Evaluation
from ccsd.config.schema import OF_MODELS, UNSCORED
from ccsd.errors import UsageError
from ccsd.evaluation.finished_cases import ScoreRow
from ccsd.evaluation.pipeline import in_workers
from ccsd.evaluation.segmentations import (
    UNNAMED,
    Pair,
    Segmentation,
    find_segmentations,
    find_subsets,
    match,
)
from ccsd.evaluation.tables import evaluation_record, scored_as, scoring_label, write_metrics
from ccsd.inference.labelmaps import check_same_grid, read_labelmap
from ccsd.metrics import Policy, Reference
from ccsd.metrics.policy import policy_of
from ccsd.records import Identity
from ccsd.study import SCORES_FILE
from preprocess.errors import counted
from preprocess.source.labels import count_values, readings
from preprocess.source.layouts.layout import numberings_of
from preprocess.source.load import read_label
from preprocess.task import LabelConvention, Task


@dataclass(frozen=True)
class _Job:
    pairs: Sequence[tuple[str, Pair]]
    conventions: Mapping[Path, LabelConvention]
    settings: Evaluation
    task: Task
    policy: Policy
    name: str
    ignore_affine: bool


def evaluate_folders(
    pred: Path,
    ref: Path,
    out: Path,
    task: Task,
    settings: Evaluation | None = None,
    *,
    layout: str | None = None,
    pred_labels: str = "auto",
    ref_labels: str = "auto",
    ignore_affine: bool = False,
    partial: bool = False,
    workers: int = 1,
) -> Path:
    """Score the segmentations in one folder against those in another and return the path of the table.

    Parameters
    ----------
    pred, ref
        Folders with NIfTI files at any depth and of any naming. Where `pred` has folders named after
        combinations of modalities, as `ccsd evaluate --model` writes them, each is scored as its own combination.
    out
        Folder for `metrics.tsv` and `evaluation.json`.
    task
        The task, which determines how segmentations are scored.
    settings
        Policy and clean-up; by default those of the default configuration.
    layout
        Name or file of the layout of both folders; detected by default.
    pred_labels, ref_labels
        Name of the label convention, or `auto`: the one that the layout or the case's name implies, or else, for a
        prediction, that of its reference.
    ignore_affine
        Compare voxel by voxel even if the files lie at different places in space, for files that lost their header.
    partial
        Ignore references without a prediction instead of raising an error.
    workers
        Processes that score cases.

    Raises
    ------
    UsageError
        If the folders cannot be matched.
    InputError
        If a file cannot be read, has labels that the convention lacks, or does not fit its reference.
    """
    settings = settings or Evaluation()
    references = find_segmentations(ref, task, layout)
    pairs = []
    for name, folder in find_subsets(pred, task).items():
        matched = _match(folder, find_segmentations(folder, task, layout), references, partial)
        pairs += [(name, pair) for pair in matched]
    predicted, expected = _all_conventions([pair for _, pair in pairs], task, pred_labels, ref_labels)
    job = _Job(
        pairs=pairs,
        conventions=predicted | expected,
        settings=settings,
        task=task,
        policy=policy_of(settings),
        name=pred.resolve().name,
        ignore_affine=ignore_affine,
    )
    scored = in_workers(functools.partial(_score_pair, job), job.pairs, workers, "scoring")
    rows = [row for case in scored for row in case]
    write_metrics(out / SCORES_FILE, rows)
    about = {
        "predictions": str(pred),
        "references": str(ref),
        "prediction_labels": described(predicted.values()),
        "reference_labels": described(expected.values()),
    }
    identity = _identity(job, about)
    evaluation_record(identity, task, job.policy, cases=len(identity.cases)).write(out)
    return out / SCORES_FILE


def _identity(job: _Job, about: dict[str, str]) -> Identity:
    """Return everything that determines the scores."""
    settings = job.settings.model_dump(mode="json", exclude=UNSCORED | OF_MODELS)
    return Identity(
        experiment=job.name,
        cases=tuple(sorted({pair.case for _, pair in job.pairs})),
        task=scoring_label(job.task),
        subsets=tuple(sorted({name for name, _ in job.pairs})),
        ignore_affine=job.ignore_affine,
        settings=settings,
        **about,
    )


def conventions_of(option: str, name: str, task: Task, found: Iterable[Segmentation]) -> dict[Path, LabelConvention]:
    """Return the label convention of each file: the one named, or with `auto` the one its layout or case implies.

    Files for which neither implies one are left out.

    Raises
    ------
    UsageError
        If there is no such convention, or the task lacks the one that the layout names.
    """
    if name != "auto":
        if name not in task.conventions:
            raise UsageError(f"{option} {name}: unknown label convention; allowed: auto, {', '.join(task.conventions)}")
        return {segmentation.path: task.convention(name) for segmentation in found}
    known: dict[Path, LabelConvention] = {}
    for segmentation in found:
        numberings = {segmentation.numbering} if segmentation.numbering else numberings_of(segmentation.case)
        if len(numberings) > 1 or not numberings <= set(task.conventions):
            raise UsageError(
                f"{segmentation.path}: its name does not show its label convention; {_asked(option, task)}"
            )
        if numberings:
            known[segmentation.path] = task.conventions[str(numberings.pop())]
    return known


def _all_conventions(
    pairs: Sequence[Pair], task: Task, pred_labels: str, ref_labels: str
) -> tuple[dict[Path, LabelConvention], dict[Path, LabelConvention]]:
    """Return the label conventions of predictions and of references; an unknown prediction has that of its reference.

    Raises
    ------
    UsageError
        If the label convention of a reference is unknown; the message shows how each convention would read it.
    """
    references = {pair.reference.path: pair.reference for pair in pairs}.values()
    expected = conventions_of("--ref-labels", ref_labels, task, references)
    if lost := next((reference.path for reference in references if reference.path not in expected), None):
        volume, _ = read_label(lost)
        meant = readings(count_values(volume.array), abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000, task)
        raise UsageError(
            f"{lost}: neither the layout nor an option says what its label numbers mean; by convention: {meant}; "
            f"{_asked('--ref-labels', task)}"
        )
    predicted = conventions_of("--pred-labels", pred_labels, task, (pair.prediction for pair in pairs))
    predicted = {p.prediction.path: predicted.get(p.prediction.path, expected[p.reference.path]) for p in pairs}
    for option, some in (("--pred-labels", predicted), ("--ref-labels", expected)):
        for convention, number in Counter(some.values()).items():
            print(f"{option}: {counted(number, 'file')} read as {convention.name} ({convention})", file=sys.stderr)
    return predicted, expected


def _asked(option: str, task: Task) -> str:
    return f"name the convention: {option} {'|'.join(task.conventions)}"


def described(conventions: Iterable[LabelConvention]) -> str:
    """Return the different conventions as text."""
    return "; ".join(sorted({f"{convention.name}: {convention}" for convention in conventions}))


def _match(
    folder: Path, predictions: dict[str, Segmentation], references: dict[str, Segmentation], partial: bool
) -> list[Pair]:
    pairs, extra = match(predictions, references, partial=partial)
    if len(pairs) < len(references):
        print(
            f"{folder}: {len(references) - len(pairs)} references have no prediction and are left out", file=sys.stderr
        )
    if extra:
        print(f"{folder}: {len(extra)} predictions have no reference and are left out", file=sys.stderr)
    return pairs


def _score_pair(job: _Job, item: tuple[str, Pair]) -> list[ScoreRow]:
    name, pair = item
    predicted = read_labelmap(pair.prediction.path, job.conventions[pair.prediction.path])
    expected = read_labelmap(pair.reference.path, job.conventions[pair.reference.path])
    check_same_grid(predicted, expected, ignore_place=job.ignore_affine)
    shared = {
        "experiment": job.name,
        "case": pair.case,
        "subset": name,
        "modalities": None if name == UNNAMED else name.count("+") + 1,
        **scored_as(job.task, job.policy, job.settings),
    }
    reference = Reference(expected.labels, expected.spacing, job.policy, job.task)
    rows = reference.score(predicted.labels, cleanup=job.settings.cleanup)
    return [{**shared, **row} for row in rows]

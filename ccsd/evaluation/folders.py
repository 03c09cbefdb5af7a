"""`ccsd evaluate --pred DIR --ref DIR --out DIR`: score any segmentations against references, without a model."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from ccsd.config import Evaluation
from ccsd.errors import UsageError
from ccsd.evaluation.finished_cases import ScoreRow
from ccsd.evaluation.tables import evaluation_record, scored_as, scoring_label, write_metrics
from ccsd.inference.labelmaps import check_same_grid, read_labelmap
from ccsd.metrics import Policy, Reference
from ccsd.metrics.policy import policy_of
from ccsd.records import Identity
from ccsd.study import SCORES_FILE
from preprocess.errors import first_few
from preprocess.files import check_case_name
from preprocess.parallel import track
from preprocess.source import nifti
from preprocess.source.labels import count_values, fitting
from preprocess.source.layouts import IGNORED, UNREAD, survey
from preprocess.source.layouts.layout import numberings_of
from preprocess.source.layouts.own_names import GENERIC, is_foreign
from preprocess.source.load import read_label
from preprocess.task import ALIASES, LabelConvention, Task

_LABEL_WORDS = (
    r"(?:seg|segm|segmentation|label|labels|gt|truth|ref|reference|pred|prediction|mask|ensemble|glistrboost)"
)
_LABEL_ENDING = re.compile(rf"(?:^|[-_.]){_LABEL_WORDS}$", re.IGNORECASE)
GIVEN = "given"
"""Stands for the combination where none is known."""


@dataclass(frozen=True)
class Pair:
    """One case: the segmentation to score and the one to score it against."""

    case: str
    prediction: Path
    reference: Path


def find_subsets(folder: Path, task: Task) -> dict[str, Path]:
    """Return the folders of predictions by combination of modalities, or the folder itself as `GIVEN`."""
    there = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    names = task.ordered_subsets(name for name in there if task.is_subset(name))
    return {name: folder / name for name in names} or {GIVEN: folder}


def find_segmentations(folder: Path, task: Task, layout: str | None = None) -> dict[str, Path]:
    """Return the segmentations at any depth below a folder by case.

    Where a layout says which file is the segmentation of a case, it is. Elsewhere a case is the file's name without its
    ending and without a word like `seg`, `pred` or `label` at its end; where nothing is left, the name of its folder.
    Left out are images, files that a layout ignores, and files whose names speak of the brain.

    Raises
    ------
    UsageError
        If the folder is missing, holds no segmentation, or has two for one case.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give a folder with one .nii or .nii.gz file per case")
    found: dict[str, Path] = {}
    for file in survey([folder], task, layout).files:
        path, by_layout = file.path, file.layout not in ("", GENERIC.name)
        case = file.case if by_layout else case_name(path, task)
        if case is None or file.role in (*task.modalities, IGNORED, UNREAD) or "+" in file.role:
            continue
        check_case_name(case, path)
        if case in found:
            raise UsageError(f"two segmentations for case {case}: {found[case]} and {path}; keep one of them")
        found[case] = path
    if not found:
        raise UsageError(f"{folder}: no segmentation found; expected one .nii or .nii.gz file per case")
    return found


def case_name(path: Path, task: Task) -> str | None:
    """Return the case that a segmentation is of, or None for an image, or what is not of a tumour."""
    stem = nifti.stem(path) or path.name
    if re.split(r"[-_.]", stem)[-1].lower() in (*ALIASES, *task.modalities) or is_foreign(stem, task):
        return None
    while shorter := _LABEL_ENDING.sub("", stem) if _LABEL_ENDING.search(stem) else "":
        stem = shorter
    return path.parent.name if _LABEL_ENDING.fullmatch(stem) else stem


def match(
    predictions: Mapping[str, Path], references: Mapping[str, Path], *, partial: bool = False
) -> tuple[list[Pair], list[str]]:
    """Pair predictions with references, and name the predictions that have no reference.

    Names that are not equal still match when exactly one prediction's name begins with the reference's name, or the
    other way round, up to `-`, `_` or `.`. `partial` leaves references without a prediction out.

    Raises
    ------
    UsageError
        If a reference has no prediction: leaving such cases out unasked would make the means too good; or if a
        prediction fits several references.
    """
    pairs, missing = [], []
    for case, reference in references.items():
        candidates = [case] if case in predictions else [name for name in predictions if _related(name, case)]
        if len(candidates) == 1:
            pairs.append(Pair(case, predictions[candidates[0]], reference))
        elif candidates or not partial:
            missing.append(case)
    if missing or not pairs:
        raise UsageError(
            f"{len(missing or references)} of {len(references)} references have no prediction, or several that fit: "
            f"{first_few(missing or list(references))}; predictions found: {first_few(list(predictions))}. "
            "Name the files after the cases, or leave such cases out with --partial, e.g. to score predictions of the "
            "test cases against the whole data set"
        )
    used: dict[Path, str] = {}
    for pair in pairs:
        if pair.prediction in used:
            raise UsageError(
                f"{pair.prediction} fits the references {used[pair.prediction]} and {pair.case}; "
                "keep one reference per case, or name the prediction after its own"
            )
        used[pair.prediction] = pair.case
    return pairs, [name for name, path in predictions.items() if path not in used]


def _related(name: str, other: str) -> bool:
    short, long = sorted((name, other), key=len)
    return long.startswith(short) and long[len(short) : len(short) + 1] in ("-", "_", ".")


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
        What was segmented from what; it says how it is scored.
    settings
        Policy and clean-up; the defaults of the configuration without it.
    layout
        Name or file of the layout of both folders; found out by default.
    pred_labels, ref_labels
        Name of the label convention, or `auto`: what the layout that a case is named in says, or the one that fits.
    ignore_affine
        Compare voxel by voxel although the files lie in different places, for files that lost their header.
    partial
        Ignore references without a prediction instead of raising an error.
    workers
        Processes that score cases.

    Raises
    ------
    UsageError
        If the folders cannot be matched.
    InputError
        If a file cannot be read, has other labels than the convention, or does not fit its reference.
    """
    settings = settings or Evaluation()
    references = find_segmentations(ref, task, layout)
    pairs = []
    for name, folder in find_subsets(pred, task).items():
        matched = _match(folder, find_segmentations(folder, task, layout), references, partial)
        pairs += [(name, pair) for pair in matched]
    predicted = conventions_of("--pred-labels", pred_labels, task, {pair.prediction: pair.case for _, pair in pairs})
    expected = conventions_of("--ref-labels", ref_labels, task, {pair.reference: pair.case for _, pair in pairs})
    job = _Job(
        pairs=pairs,
        conventions=predicted | expected,
        settings=settings,
        task=task,
        policy=policy_of(settings),
        name=pred.resolve().name,
        ignore_affine=ignore_affine,
    )
    rows = [row for case in _score_all(job, workers) for row in case]
    write_metrics(out / SCORES_FILE, rows)
    about = {
        "predictions": str(pred),
        "references": str(ref),
        "prediction_labels": _described(predicted.values()),
        "reference_labels": _described(expected.values()),
    }
    identity = _identity(job, about)
    evaluation_record(identity, task, job.policy, cases=len(identity.cases)).write(out)
    return out / SCORES_FILE


def _identity(job: _Job, about: dict[str, str]) -> Identity:
    """Return everything that decides the numbers."""
    settings = job.settings.model_dump(mode="json", exclude={"subsets", "subsets_per_job", "overlap", "flips"})
    return Identity(
        experiment=job.name,
        cases=tuple(sorted({pair.case for _, pair in job.pairs})),
        task=scoring_label(job.task),
        subsets=tuple(sorted({name for name, _ in job.pairs})),
        ignore_affine=job.ignore_affine,
        settings=settings,
        **about,
    )


def conventions_of(option: str, name: str, task: Task, cases: Mapping[Path, str]) -> dict[Path, LabelConvention]:
    """Return the label convention of each file: the one named, or by `auto` what the name of its case shows.

    Files whose cases have names of their own are read in the one convention that fits what all of them have together.

    Raises
    ------
    UsageError
        If there is no such convention, or it cannot be told.
    """
    if name != "auto":
        if name not in task.conventions:
            raise UsageError(f"{option} {name}: unknown label convention; allowed: auto, {', '.join(task.conventions)}")
        return dict.fromkeys(cases, task.convention(name))
    found: dict[Path, LabelConvention] = {}
    others = []
    for path, case in cases.items():
        known = numberings_of(case)
        if not known:
            others.append(path)
        elif len(known) == 1 and (numbering := next(iter(known))) in task.conventions:
            found[path] = task.convention(numbering)
        else:
            raise UsageError(f"{path}: its name does not tell its label numbers; {_asked(option, task)}")
    if others:
        found |= dict.fromkeys(others, _fitting(option, others, task))
    for convention, number in Counter(found.values()).items():
        print(f"{option}: {number} files read as {convention.name} ({convention})", file=sys.stderr)
    return found


def _fitting(option: str, paths: Sequence[Path], task: Task) -> LabelConvention:
    if len(task.conventions) == 1:  # the numbers are verified where they are read
        return task.default_convention
    counts: Counter[int | float] = Counter()
    for path in paths:
        counts.update(count_values(read_label(path)[0].array))
    fit = fitting(counts, task)
    if len(fit) != 1:
        listed = ", ".join(str(value) for value in sorted(counts))
        names = ", ".join(convention.name for convention in fit) or "no convention"
        raise UsageError(f"{paths[0].parent}: labels {listed} fit {names}; {_asked(option, task)}")
    return fit[0]


def _asked(option: str, task: Task) -> str:
    return f"name the convention: {option} {'|'.join(task.conventions)}"


def _described(conventions: Iterable[LabelConvention]) -> str:
    return "; ".join(sorted({f"{convention.name}: {convention}" for convention in conventions}))


def _match(folder: Path, predictions: dict[str, Path], references: dict[str, Path], partial: bool) -> list[Pair]:
    pairs, extra = match(predictions, references, partial=partial)
    if len(pairs) < len(references):
        print(f"{folder}: {len(references) - len(pairs)} references have no prediction, left out", file=sys.stderr)
    if extra:
        print(f"{folder}: {len(extra)} predictions have no reference and are left out", file=sys.stderr)
    return pairs


def _score_all(job: _Job, workers: int) -> Iterable[list[ScoreRow]]:
    score = partial(_score_pair, job)
    total = len(job.pairs)
    if workers <= 1:
        yield from track((score(item) for item in job.pairs), total, "scoring")
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        yield from track(pool.map(score, job.pairs), total, "scoring")


def _score_pair(job: _Job, item: tuple[str, Pair]) -> list[ScoreRow]:
    name, pair = item
    predicted = read_labelmap(pair.prediction, job.conventions[pair.prediction])
    expected = read_labelmap(pair.reference, job.conventions[pair.reference])
    check_same_grid(predicted, expected, ignore_place=job.ignore_affine)
    shared = {
        "experiment": job.name,
        "case": pair.case,
        "subset": name,
        "modalities": None if name == GIVEN else name.count("+") + 1,
        **scored_as(job.task, job.policy, job.settings),
    }
    reference = Reference(expected.labels, expected.spacing, job.policy, job.task)
    rows = reference.score(predicted.labels, cleanup=job.settings.cleanup)
    return [{**shared, **row} for row in rows]

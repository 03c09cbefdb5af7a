"""`ccsd adopt PREDICTIONS --study DIR --as METHOD`: add another method's label maps to a study as an evaluation."""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ccsd.config import Evaluation
from ccsd.config.load import evaluation_settings
from ccsd.config.schema import OF_MODELS, UNSCORED, RunName
from ccsd.errors import USER_ERRORS, UsageError
from ccsd.evaluation.finished_cases import ScoreRow
from ccsd.evaluation.folders import conventions_of, described
from ccsd.evaluation.pipeline import in_workers
from ccsd.evaluation.segmentations import (
    UNNAMED,
    Segmentation,
    find_segmentations,
    find_subsets,
    match,
    unknown_folders,
)
from ccsd.evaluation.tables import evaluation_record, scored_as, scoring_label, write_metrics
from ccsd.inference.labelmaps import check_same_grid, labelmap_of, read_labelmap, write_labelmap
from ccsd.metrics import Policy, Reference
from ccsd.metrics.policy import policy_of
from ccsd.records import EvaluationRecord, Identity, short_hash
from ccsd.study import ADOPTED, SCORES_FILE, StudyFolder, checked_split, prediction_file, split_for
from preprocess.dataset import data_task
from preprocess.errors import first_few
from preprocess.files import complete_or_absent, sweep
from preprocess.folds import read_folds
from preprocess.reading import read_mapping
from preprocess.store.reader import CaseStore, list_cases
from preprocess.task import LabelConvention, Task

_SHOWN = 40
"""How many problems a message lists at most."""


@dataclass(frozen=True)
class Adopted:
    """The result of adopting predictions: the table of scores, and notes for the user."""

    scores: Path
    notes: list[str]


@dataclass(frozen=True)
class _Cases:
    """The test cases of a study."""

    stores: Mapping[str, CaseStore]
    folds: Mapping[str, int]
    """The fold that holds out each case."""
    untested: frozenset[str]
    """The other cases, such as the training cases."""
    split_hash: str


@dataclass(frozen=True)
class _Job:
    name: str
    task: Task
    settings: Evaluation
    policy: Policy
    cases: _Cases
    read_as: Mapping[Path, LabelConvention]
    """The label convention of each file."""
    only_check: bool
    """Whether a problem was found already, so that the remaining files are only checked, not scored."""
    ignore_affine: bool
    out: Path


def adopt(
    predictions: Path,
    study: Path,
    name: str,
    *,
    labels: str = "auto",
    layout: str | None = None,
    overrides: Sequence[str] = (),
    ignore_affine: bool = False,
    partial: bool = False,
    workers: int = 1,
) -> Adopted:
    """Score the label maps of another method on the test cases of a study, as an experiment of its report.

    The evaluation is written completely or not at all. It replaces what was adopted under this name before.

    Parameters
    ----------
    predictions
        Folder with one folder per combination of sequences, such as `flair+t1ce` (in any order), or with label maps
        made from all sequences. Files are named after the cases.
    study
        `results/NAME` with converted cases and their split. With folds, all cases are expected, because each is a test
        case of one fold.
    name
        Name of the method in the report.
    labels
        Name of the label convention. `auto`: the one that the layout or the case's name implies, or else that of the
        converted case.
    layout, overrides, ignore_affine, workers
        As in `ccsd.evaluation.folders.evaluate_folders`; without overrides, the scoring is that of the study.
    partial
        Whether cases may be missing.

    Raises
    ------
    UsageError
        If the name cannot be used, or label maps are missing, unknown or do not fit their cases. All problems are
        listed.
    InputError
        If the study's cases or split cannot be used.
    """
    folder = StudyFolder(study)
    if not folder.data.is_dir():
        raise UsageError(
            f"{study}: no converted cases in {folder.data}; give the folder of a study, such as results/NAME"
        )
    task = data_task(folder.data)
    _check_name(folder, name)
    settings = _settings(folder, overrides, task)
    cases = _tested(folder.data, task)
    found = _find(predictions, task, cases, layout, partial)
    read_as = _conventions(labels, task, cases, found)
    with _place(folder.evaluation(name, ADOPTED)) as out:
        job = _Job(name, task, settings, policy_of(settings), cases, read_as, bool(found.problems), ignore_affine, out)
        rows = _score(job, found, predictions, workers)
        write_metrics(out / SCORES_FILE, rows)
        about = {"predictions": str(predictions), "prediction_labels": described(read_as.values())}
        _record(job, rows, about).write(out)
    return Adopted(folder.evaluation(name, ADOPTED) / SCORES_FILE, found.notes)


def _check_name(folder: StudyFolder, name: str) -> None:
    try:
        TypeAdapter(RunName).validate_python(name)
    except ValidationError:
        raise UsageError(
            f"--as {name!r}: give a name of letters, digits, dots and underscores, such as rfnet"
        ) from None
    own = folder.evaluation(name, ADOPTED)
    taken = {EvaluationRecord.read(path).identity.experiment for path in folder.evaluations().values() if path != own}
    if name in taken | set(_config_of(folder).get("experiments") or ()):
        raise UsageError(f"--as {name}: {folder.root} already has an experiment of this name; choose another one")


def _config_of(folder: StudyFolder) -> dict[str, Any]:
    """Return the configuration of a study, or an empty one if the study was made by hand."""
    return read_mapping(folder.config, "configuration", "settings") if folder.config.is_file() else {}


def _settings(folder: StudyFolder, overrides: Sequence[str], task: Task) -> Evaluation:
    """Return how to score: by the study's configuration, or else as in its first evaluation."""
    records = (EvaluationRecord.read(path).identity.settings for path in folder.evaluations().values())
    configured = _config_of(folder).get("evaluation") or next(records, {})
    known = {key: value for key, value in configured.items() if key in Evaluation.model_fields}
    return evaluation_settings(Evaluation.model_validate(known), overrides, task)


def _tested(data: Path, task: Task) -> _Cases:
    folds = read_folds(data)
    split = split_for(data, str(data), task) if folds is None else checked_split(data, str(data), task, folds.fixed)
    held_out = {} if folds is None else folds.held_out
    names = sorted([*split.test, *held_out])
    if not names:
        raise UsageError(f"{data}: the split has no test case; run `ccsd split` with train + val below 1")
    untested = frozenset(list_cases(data)) - set(names)
    return _Cases({case: CaseStore(data, case) for case in names}, held_out, untested, split.folds or split.hash)


@dataclass(frozen=True)
class _Found:
    """Label maps by case and combination, with problems and notes."""

    by_case: dict[str, dict[str, Segmentation]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _find(predictions: Path, task: Task, cases: _Cases, layout: str | None, partial: bool) -> _Found:
    found = _Found()
    if unknown := unknown_folders(predictions, task):
        found.problems.extend(
            f"{path}: not a combination of {', '.join(task.modalities)}, joined by '+'" for path in unknown
        )
    for name, folder in find_subsets(predictions, task).items():
        subset = task.full_name if name == UNNAMED else name
        wanted = {
            case: Segmentation(case, store.root / case)
            for case, store in cases.stores.items()
            if set(task.subset(subset)) <= set(store.modalities)
        }
        try:
            there = find_segmentations(folder, task, layout)
            others = [case for case in there if case in cases.untested]  # not test cases with a suffix
            pairs, extra = match({case: there[case] for case in there if case not in others}, wanted, partial=True)
            extra = sorted([*extra, *others])
        except UsageError as error:
            found.problems.append(f"{subset}: {error}")
            continue
        for pair in pairs:
            found.by_case.setdefault(pair.case, {})[subset] = pair.prediction
        missing = sorted(set(wanted) - {pair.case for pair in pairs})
        text = [f"{subset}: {first_few(missing)}: no label map"] if missing else []
        (found.notes if partial else found.problems).extend(text)
        found.notes.extend([f"{subset}: ignored, not among the test cases: {first_few(extra)}"] if extra else [])
    return found


def _conventions(labels: str, task: Task, cases: _Cases, found: _Found) -> dict[Path, LabelConvention]:
    """Return the label convention of each file: the one named, with `auto` the one implied, else that of its case."""
    named = conventions_of(
        "--labels", labels, task, [item for maps in found.by_case.values() for item in maps.values()]
    )
    read_as = {
        item.path: named.get(item.path, cases.stores[case].meta.label_convention)
        for case, maps in found.by_case.items()
        for item in maps.values()
    }
    for convention, number in Counter(read_as.values()).items():
        found.notes.append(f"{number} label maps read as {convention.name} ({convention})")
    return read_as


@contextmanager
def _place(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` on success and is removed otherwise."""
    sweep(folder.parent)
    try:
        with complete_or_absent(folder) as out:
            out.mkdir()
            yield out
    finally:
        with suppress(OSError):  # it may contain other folders
            folder.parent.rmdir()


def _score(job: _Job, found: _Found, predictions: Path, workers: int) -> list[ScoreRow]:
    problems, rows = list(found.problems), []
    done = in_workers(functools.partial(_score_case, job), list(found.by_case.items()), workers, "adopting")
    for scored, wrong in done:
        rows += scored
        problems += wrong
    if problems:
        raise UsageError(
            f"{predictions}: nothing was adopted:\n{first_few([f'  {text}' for text in problems], _SHOWN, chr(10))}\n"
            "Fix these problems, accept missing label maps (--partial), or choose the label convention "
            f"(--labels {'|'.join(job.task.conventions)}). Folders are named after combinations, such as "
            f"{job.task.full_name}, and files after cases"
        )
    return rows


def _score_case(job: _Job, item: tuple[str, dict[str, Segmentation]]) -> tuple[list[ScoreRow], list[str]]:
    """Return the rows of a case, and the problems with its label maps."""
    case, maps = item
    store = job.cases.stores[case]
    own, expected = store.meta.label_convention, labelmap_of(store)
    reference = None if job.only_check else Reference(expected.labels, expected.spacing, job.policy, job.task)
    rows: list[ScoreRow] = []
    problems = []
    for subset in job.task.ordered_subsets(maps):
        try:
            predicted = read_labelmap(maps[subset].path, job.read_as[maps[subset].path])
            check_same_grid(predicted, expected, ignore_place=job.ignore_affine)
        except USER_ERRORS as error:
            problems.append(f"{subset}, {case}: {error}")
        if problems or reference is None:
            continue
        if job.settings.keep_predictions:
            place = prediction_file(job.out, subset, case)
            write_labelmap(place, predicted.labels, store.meta.geometry.whole, job.task.output_convention(own))
        about = {"experiment": job.name, "case": case, "subset": subset, "modalities": subset.count("+") + 1}
        about |= {"fold": job.cases.folds.get(case), "split_hash": short_hash(job.cases.split_hash)}
        about |= scored_as(job.task, job.policy, job.settings)
        rows += [{**about, **row} for row in reference.score(predicted.labels, cleanup=job.settings.cleanup)]
    return rows, problems


def _record(job: _Job, rows: Sequence[ScoreRow], about: Mapping[str, str]) -> EvaluationRecord:
    scored = {(str(row["subset"]), str(row["case"])) for row in rows}
    cases = sorted({case for _, case in scored})
    identity = Identity(
        experiment=job.name,
        task=scoring_label(job.task),
        split_hash=job.cases.split_hash,
        cases=tuple(cases),
        subsets=tuple(job.task.ordered_subsets({subset for subset, _ in scored})),
        settings=job.settings.model_dump(mode="json", exclude=UNSCORED | OF_MODELS),
        ignore_affine=job.ignore_affine,
        **about,
    )
    counts = dict(sorted(Counter(subset for subset, _ in scored).items()))
    return evaluation_record(identity, job.task, job.policy, cases=len(cases), cases_by_subset=counts)

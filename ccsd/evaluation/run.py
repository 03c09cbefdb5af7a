"""`ccsd evaluate --model RUN --data DEST --out DIR`: score a model on the test cases, for each combination."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccsd.config import Evaluation
from ccsd.config.load import evaluation_settings
from ccsd.device import choose_device
from ccsd.errors import UsageError
from ccsd.evaluation.finished_cases import FinishedCases, ScoreRow
from ccsd.evaluation.tables import DIGITS, evaluation_record, scored_as, scoring_label, write_metrics
from ccsd.inference.case import segment_case, training_spacing
from ccsd.inference.labelmaps import write_labelmap
from ccsd.metrics import Policy, Reference, paint
from ccsd.metrics.policy import policy_of
from ccsd.records import EvaluationRecord, Identity
from ccsd.study import SCORES_FILE, prediction_file, split_for
from preprocess.parallel import track
from preprocess.store.reader import CaseStore
from preprocess.task import Subset, Task, refuse_mixture

if TYPE_CHECKING:
    import torch

    from ccsd.model import TrainedModel


@dataclass(frozen=True)
class _Job:
    model: "TrainedModel"
    experiment: str
    device: "torch.device"
    settings: Evaluation
    subsets: tuple[Subset, ...]
    out: Path
    policy: Policy
    task: Task


def evaluate_model(
    model: Path,
    data: Path,
    out: Path,
    subsets: Sequence[str] = (),
    overrides: Sequence[str] = (),
    task: Task | None = None,
    device: str | None = None,
) -> Path:
    """Score the test cases of `data` and return the path of the table.

    A case is done when its predictions and scores are written, so an evaluation that was interrupted resumes; one
    that is complete is left as it is.

    Parameters
    ----------
    model
        Folder of a finished training run.
    data
        Folder of converted cases with `split.tsv`.
    out
        Folder for `metrics.tsv`, `evaluation.json` and `predictions/SUBSET/CASE.nii.gz`.
    subsets
        Combinations to score; without any, those of the configuration, else all.
    overrides
        `evaluation.KEY=VALUE` settings that replace those of the run.
    task
        The task by whose rules to score, if they have changed since the training; that of the run without it.
    device
        auto or cpu, as in `ccsd.device.choose_device`.

    Raises
    ------
    UsageError
        If the run, the split or a setting cannot be used.
    InputError
        If the data or `task` belong to another task than the run.
    """
    from ccsd.data.patches import copy_with_torch
    from ccsd.model import load_model

    chosen = choose_device(device)
    trained = load_model(model, chosen)
    task = task or trained.config.task
    refuse_mixture([(str(model), trained.config.task), ("--task", task)])
    settings = evaluation_settings(trained.config.evaluation, overrides, task)
    split = split_for(data, str(model), task)
    if not split.test:
        raise UsageError(f"{data}: no case of the split is for testing; run `ccsd split` with train + val below 1")
    experiment = trained.record.experiment or model.resolve().name
    job = _Job(trained, experiment, chosen, settings, _wanted(subsets, settings, task), out, policy_of(settings), task)
    identity = _identity(job, split.hash, split.test)
    if _is_complete(out, identity):
        return out / SCORES_FILE
    finished = FinishedCases(out, identity)
    rows: list[ScoreRow] = []
    for case in track(split.test, len(split.test), "evaluating"):
        done = finished.read(case)
        if done is None:
            done = _evaluate_case(job, CaseStore(data, case, copy_with_torch))
            finished.write(case, done)
        rows += [{**row, "split_hash": split.hash[:DIGITS]} for row in done]
    _write(job, rows, identity)
    finished.discard()
    return out / SCORES_FILE


def _wanted(names: Sequence[str], settings: Evaluation, task: Task) -> tuple[Subset, ...]:
    chosen = [task.subset_name(name) for name in (names or settings.subsets)]
    return tuple(task.subset(name) for name in task.ordered_subsets(chosen or task.subset_names))


def _identity(job: _Job, split_hash: str, cases: Sequence[str]) -> Identity:
    """Return everything that decides the numbers."""
    return Identity(
        experiment=job.experiment,
        seed=job.model.config.train.seed,
        model_hash=job.model.record.model_hash,
        split_hash=split_hash,
        cases=tuple(cases),
        subsets=tuple("+".join(s) for s in job.subsets),
        task=scoring_label(job.task),
        window=list(job.model.config.train.patch),
        spacing_mm=list(training_spacing(job.model)),
        settings=job.settings.model_dump(mode="json", exclude={"subsets", "subsets_per_job"}),
    )


def _is_complete(out: Path, identity: Identity) -> bool:
    try:
        return (out / SCORES_FILE).is_file() and EvaluationRecord.read(out).identity == identity
    except UsageError:
        return False


def _evaluate_case(job: _Job, case: CaseStore) -> list[ScoreRow]:
    if not case.has_label:
        raise UsageError(f"case {case.case}: has no segmentation to score against; take it out of the test split")
    possible = tuple(s for s in job.subsets if set(s) <= set(case.modalities))
    if not possible:
        return []
    spacing = case.meta.geometry.spacing
    whole = case.meta.geometry.shape
    reference = Reference(case.read_label(), spacing, job.policy, job.task, whole)
    image = case.read_channels(name for combination in possible for name in combination)
    found = segment_case(job.model, image, spacing, possible, job.settings, job.device)
    rows: list[ScoreRow] = []
    for combination, regions in zip(possible, found, strict=True):
        labels = paint(regions.cpu().numpy(), job.task)
        if job.settings.keep_predictions:
            path = prediction_file(job.out, "+".join(combination), case.case)
            convention = job.task.output_convention(case.meta.label_convention)
            write_labelmap(path, labels, case.meta.geometry, convention)
        shared = _row_keys(job, case.case, combination)
        rows += [{**shared, **row} for row in reference.score(labels, cleanup=job.settings.cleanup)]
    return rows


def _row_keys(job: _Job, case: str, combination: Subset) -> ScoreRow:
    return {
        "experiment": job.experiment,
        "seed": job.model.config.train.seed,
        "case": case,
        "subset": "+".join(combination),
        "modalities": len(combination),
        **scored_as(job.task, job.policy, job.settings),
        "model_hash": job.model.record.model_hash[:DIGITS],
    }


def _write(job: _Job, rows: list[ScoreRow], identity: Identity) -> None:
    if not rows:
        names = ", ".join("+".join(s) for s in job.subsets)
        raise UsageError(f"no test case has all modalities of any of: {names}; choose others with -m")
    write_metrics(job.out / SCORES_FILE, rows)
    scored = {(str(row["subset"]), row["case"]) for row in rows}
    evaluation_record(
        identity,
        job.task,
        job.policy,
        cases=len({case for _, case in scored}),
        cases_by_subset=dict(sorted(Counter(name for name, _ in scored).items())),
        device=str(job.device),
    ).write(job.out)

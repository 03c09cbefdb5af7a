"""`ccsd evaluate --model RUN --data DEST --out DIR`: score a model on the test cases, for each combination."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ccsd.config import Evaluation
from ccsd.config.load import evaluation_settings
from ccsd.config.schema import UNSCORED
from ccsd.device import choose_device
from ccsd.errors import UsageError
from ccsd.evaluation.finished_cases import FinishedCases, ScoreRow
from ccsd.evaluation.held_out import split_to_score, warn_of_known_cases
from ccsd.evaluation.pipeline import overlapped, prepare_workers
from ccsd.evaluation.scoring import Found, Scoring
from ccsd.evaluation.tables import evaluation_record, scoring_label, write_metrics
from ccsd.inference.brain import PAINTED
from ccsd.inference.case import segment_case
from ccsd.inference.ensemble import Ensemble, load_ensemble, read_members
from ccsd.metrics.policy import policy_of
from ccsd.metrics.regions import Spacing
from ccsd.records import EvaluationRecord, Identity, short_hash
from ccsd.study import SCORES_FILE
from preprocess.dataset import content_hash
from preprocess.errors import first_few
from preprocess.parallel import select_part, track
from preprocess.splits import Split
from preprocess.store.reader import CaseStore
from preprocess.task import Subset, Task, reject_mixture

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Job:
    ensemble: Ensemble
    device: "torch.device"
    subsets: tuple[Subset, ...]
    settings: Evaluation
    task: Task
    identity: Identity


def evaluate_model(
    models: Path | str | Sequence[Path | str],
    data: Path,
    out: Path,
    subsets: Sequence[str] = (),
    overrides: Sequence[str] = (),
    task: Task | None = None,
    device: str | None = None,
    workers: int = 1,
    part: tuple[int, int] = (1, 1),
    fold: int | None = None,
) -> Path | None:
    """Score the test cases of `data` and return the path of the table; None while other parts are not finished.

    A case is finished once its predictions and scores are written, so an interrupted evaluation can be resumed; a
    complete one is left as it is. The table is the same for any number of workers and parts.

    Parameters
    ----------
    models
        What `--model` takes, such as the folder of a finished training run. With several, the mean of their
        probabilities is scored, as an experiment named after theirs.
    data
        Folder of converted cases with `split.tsv`.
    out
        Folder for `metrics.tsv`, `evaluation.json` and `predictions/SUBSET/CASE.nii.gz`.
    subsets
        Combinations to score; by default those of the configuration, or else all.
    overrides
        `evaluation.KEY=VALUE` settings that replace those of the (first) run.
    task
        The task whose rules are used for scoring, if they have changed since the training; by default that of the
        (first) run.
    device
        auto or cpu, as in `ccsd.device.choose_device`.
    workers
        Other processes that write and score label maps; with 1, this process does so.
    part
        (I, N): score part I of N of the cases, I from 1. Parts may run in any order and at the same time, with the
        same `out`; the one that ends last writes the table.
    fold
        The fold whose cases are scored. By default that of the models; for models of several folds, or of none, the
        cases that are in no fold.

    Raises
    ------
    UsageError
        If a run, the split or a setting cannot be used, or the runs do not fit together.
    InputError
        If the data or `task` do not match the task of the run, or there is no such part.
    ChildProcessError
        If a worker is killed.
    """
    if workers > 1:
        prepare_workers()
    select_part((), part)  # rejects a wrong part before any work is done
    job, split = _job(models, data, subsets, overrides, task, device, fold)
    if _is_complete(out, job.identity):
        return out / SCORES_FILE
    own = select_part(split.test, part)
    finished = FinishedCases(out, job.identity, own)
    left = [case for case in own if finished.read(case) is None]
    done = chain(
        (case for case in own if case not in left),
        (case for case, _ in _scored(job, data, out, left, finished, min(workers, max(1, len(left))))),
    )
    for _ in track(done, len(own), "evaluating"):
        pass
    return _join(job, out, split, finished)


def _job(
    models: Path | str | Sequence[Path | str],
    data: Path,
    subsets: Sequence[str],
    overrides: Sequence[str],
    task: Task | None,
    device: str | None,
    fold: int | None,
) -> tuple[_Job, Split]:
    chosen = choose_device(device)
    ensemble = load_ensemble(read_members(models), chosen)
    first = ensemble.members[0].where
    task = task or ensemble.task
    reject_mixture([(first, ensemble.task), ("--task", task)])
    settings = evaluation_settings(ensemble.settings, overrides, task)
    split, fold = split_to_score(ensemble.members, data, task, fold)
    if not split.test:
        raise UsageError(f"{data}: the split has no test case; run `ccsd split` with train + val below 1")
    warn_of_known_cases(ensemble.members, data, split)
    wanted = _wanted(subsets, settings, task)
    identity = _identity(ensemble, settings, wanted, task, data, split, fold)
    return _Job(ensemble, chosen, wanted, settings, task, identity), split


def _scored(
    job: _Job, data: Path, out: Path, cases: Sequence[str], finished: FinishedCases, workers: int
) -> Iterator[tuple[str, list[ScoreRow]]]:
    from ccsd.data.patches import copy_with_torch

    about: ScoreRow = {
        "experiment": job.identity.experiment,
        "seed": job.identity.seed,
        "fold": job.identity.fold,
        "model_hash": short_hash(job.ensemble.model_hash),
    }
    scoring = Scoring(data, out, job.settings, policy_of(job.settings), job.task, about, finished)
    return overlapped(
        cases,
        lambda case: _read(job, CaseStore(data, case, copy_with_torch)),
        lambda _, image: _segment(job, image),
        scoring.score,
        workers,
    )


def _join(job: _Job, out: Path, split: Split, finished: FinishedCases) -> Path | None:
    """Write the table if the cases of all parts are finished."""
    found = {case: finished.read(case) for case in split.test}
    missing = [case for case, rows in found.items() if rows is None]
    if missing and not _is_complete(out, job.identity):  # another part may have written it just now
        print(
            f"{len(missing)} of {len(found)} test cases are not scored yet ({first_few(missing)}); the part that ends "
            f"last writes {SCORES_FILE}. If no part is running any more, run one of them again, or run all of them "
            "without --part"
        )
        return None
    if not missing:
        _write(
            job,
            out,
            [
                {**row, "split_hash": short_hash(job.identity.split_hash)}
                for rows in found.values()
                for row in rows or ()
            ],
        )
    finished.discard()
    return out / SCORES_FILE


def _wanted(names: Sequence[str], settings: Evaluation, task: Task) -> tuple[Subset, ...]:
    chosen = [task.subset_name(name) for name in (names or settings.subsets)]
    return tuple(task.subset(name) for name in task.ordered_subsets(chosen or task.subset_names))


def _identity(
    ensemble: Ensemble,
    settings: Evaluation,
    subsets: Sequence[Subset],
    task: Task,
    data: Path,
    split: Split,
    fold: int | None,
) -> Identity:
    """Return everything that determines the scores."""
    return Identity(
        experiment=ensemble.name,
        model_hash=ensemble.model_hash,
        split_hash=split.folds or split.hash,
        **({} if fold is None else {"fold": fold}),
        cases=tuple(split.test),
        content_hash=content_hash(data, split.test),
        subsets=tuple("+".join(s) for s in subsets),
        task=scoring_label(task),
        **_which(ensemble),
        spacing_mm=list(ensemble.spacing),
        painted=PAINTED,
        settings=settings.model_dump(mode="json", exclude=UNSCORED),
    )


def _which(ensemble: Ensemble) -> dict[str, Any]:
    """Return seed and window of one model, or identity and window of each of several."""
    windows = [list(member.config.train.patch) for member in ensemble.members]
    if len(windows) == 1:
        return {"seed": ensemble.identities[0].seed, "window": windows[0]}
    named = zip(ensemble.identities, windows, strict=True)
    return {"models": [{**identity.model_dump(exclude_unset=True), "window": window} for identity, window in named]}


def _is_complete(out: Path, identity: Identity) -> bool:
    """Earlier versions did not look at the contents of the cases: their scores count as those of these cases."""
    earlier = Identity(**identity.model_dump(exclude={"content_hash"}, exclude_unset=True))
    try:
        return (out / SCORES_FILE).is_file() and EvaluationRecord.read(out).identity in (identity, earlier)
    except UsageError:
        return False


@dataclass(frozen=True)
class _Image:
    voxels: npt.NDArray[np.float32]
    spacing: Spacing
    subsets: tuple[Subset, ...]
    """The combinations for which the case has all modalities."""


def _read(job: _Job, case: CaseStore) -> _Image:
    if not case.has_label:
        raise UsageError(f"case {case.case}: has no segmentation to score against; remove it from the test split")
    possible = tuple(s for s in job.subsets if set(s) <= set(case.modalities))
    voxels = case.read_channels({name for combination in possible for name in combination}) if possible else _NOTHING
    return _Image(voxels, case.meta.geometry.spacing, possible)


_NOTHING = np.zeros((0, 0, 0, 0), np.float32)


def _segment(job: _Job, image: _Image) -> Found:
    """Return the label maps of the combinations, and the models' confidence in them."""
    if not image.subsets:
        return Found((), np.zeros((0, 0, 0, 0), np.uint8), np.zeros((0, len(job.task.regions))))
    import torch

    maps, sure = [], []
    for one in segment_case(job.ensemble, image.voxels, image.spacing, image.subsets, job.settings, job.device):
        maps.append(one.labels)
        sure.append(one.confidence)
    return Found(image.subsets, torch.stack(maps).cpu().numpy(), torch.stack(sure).cpu().numpy())


def _write(job: _Job, out: Path, rows: list[ScoreRow]) -> None:
    if not rows:
        names = ", ".join("+".join(s) for s in job.subsets)
        raise UsageError(
            f"no test case has all modalities of any of these combinations: {names}; choose others with -m"
        )
    write_metrics(out / SCORES_FILE, rows)
    scored = {(str(row["subset"]), row["case"]) for row in rows}
    evaluation_record(
        job.identity,
        job.task,
        policy_of(job.settings),
        cases=len({case for _, case in scored}),
        cases_by_subset=dict(sorted(Counter(name for name, _ in scored).items())),
        device=str(job.device),
    ).write(out)

"""`ccsd evaluate --model RUN --data DEST --out DIR`: score a model on the test cases, for each combination."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccsd.config import Evaluation
from ccsd.config.load import evaluation_settings
from ccsd.errors import UsageError
from ccsd.evaluation.finished_cases import Parts, Row
from ccsd.evaluation.tables import DIGITS, describe, read_json, write_json, write_metrics
from ccsd.inference import segment_case, training_spacing
from ccsd.inference.labelmaps import write_labels
from ccsd.metrics import Policy, Reference, paint
from ccsd.metrics.policy import policy_of
from preprocess.modalities import MODALITIES, Subset, all_subsets, subset, subset_name
from preprocess.parallel import track
from preprocess.splits import read_split
from preprocess.store.reader import CaseStore, open_case

if TYPE_CHECKING:
    import torch

    from ccsd.model import Run


@dataclass(frozen=True)
class _Job:
    run: "Run"
    experiment: str
    device: "torch.device"
    settings: Evaluation
    subsets: tuple[Subset, ...]
    out: Path
    policy: Policy


def evaluate_model(
    model: Path, data: Path, out: Path, subsets: Sequence[str] = (), overrides: Sequence[str] = ()
) -> Path:
    """Score the test cases of `data` and return the path of the table.

    A case is done when its predictions and scores are written, so an evaluation that was interrupted carries on; one
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
        Combinations to score; without any, those of the configuration, else all 15.
    overrides
        `evaluation.KEY=VALUE` settings that replace those of the run.

    Raises
    ------
    UsageError
        If the run, the split or a setting cannot be used.
    """
    import torch

    from ccsd.model import load_run

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = load_run(model, device)
    settings = evaluation_settings(run.config, overrides)
    split = read_split(data)
    if not split.test:
        raise UsageError(f"{data}: no case of the split is for testing; run `ccsd split` with train + val below 1")
    experiment = str(run.info.get("experiment") or model.resolve().name)
    job = _Job(run, experiment, device, settings, _wanted(subsets, settings), out, policy_of(settings))
    identity = _identity(job, split.hash, split.test)
    if _is_complete(out, identity):
        return out / "metrics.tsv"
    parts = Parts(out, identity)
    rows: list[Row] = []
    for case in track(split.test, len(split.test), "evaluating"):
        done = parts.read(case)
        if done is None:
            done = _evaluate_case(job, open_case(data, case))
            parts.write(case, done)
        rows += [{**row, "split_hash": split.hash[:DIGITS]} for row in done]
    _write(job, rows, identity)
    parts.discard()
    return out / "metrics.tsv"


def _wanted(names: Sequence[str], settings: Evaluation) -> tuple[Subset, ...]:
    chosen = {subset_name(name) for name in (names or settings.subsets)}
    return tuple(s for s in all_subsets() if not chosen or subset_name(s) in chosen)


def _identity(job: _Job, split_hash: str, cases: Sequence[str]) -> dict[str, Any]:
    """Return everything that decides the numbers."""
    return {
        "experiment": job.experiment,
        "seed": job.run.config.train.seed,
        "model_hash": job.run.model_hash,
        "split_hash": split_hash,
        "cases": list(cases),
        "subsets": [subset_name(s) for s in job.subsets],
        "window": list(job.run.config.train.patch),
        "spacing_mm": list(training_spacing(job.run)),
        "settings": job.settings.model_dump(mode="json", exclude={"subsets", "subsets_per_job"}),
    }


def _is_complete(out: Path, identity: dict[str, Any]) -> bool:
    if not (out / "metrics.tsv").is_file() or not (out / "evaluation.json").is_file():
        return False
    return bool(read_json(out / "evaluation.json").get("identity") == identity)


def _evaluate_case(job: _Job, case: CaseStore) -> list[Row]:
    if not case.has_label:
        raise UsageError(f"case {case.case}: has no segmentation to score against; take it out of the test split")
    possible = tuple(s for s in job.subsets if set(s) <= set(case.modalities))
    if not possible:
        return []
    spacing = case.meta.geometry.spacing
    reference = Reference(case.read_label(), spacing, job.policy)
    found = segment_case(job.run, _read(case, possible), spacing, possible, job.settings, job.device)
    rows: list[Row] = []
    for combination, regions in zip(possible, found, strict=True):
        labels = paint(regions.cpu().numpy())
        if job.settings.keep_predictions:
            path = job.out / "predictions" / subset_name(combination) / f"{case.case}.nii.gz"
            write_labels(path, labels, case.meta.geometry, case.meta.label_convention)
        shared = _row_keys(job, case.case, combination)
        rows += [{**shared, **row} for row in reference.score(labels, job.settings.min_enhancing)]
    return rows


def _read(case: CaseStore, subsets: Sequence[Subset]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return 4 x D x H x W: the modalities of the combinations; the others stay 0 and are not read."""
    needed = subset(name for s in subsets for name in s)
    image = np.zeros((len(MODALITIES), *case.shape), np.float32)
    image[[MODALITIES.index(name) for name in needed]] = case.read(needed)
    return image


def _row_keys(job: _Job, case: str, combination: Subset) -> Row:
    return {
        "experiment": job.experiment,
        "seed": job.run.config.train.seed,
        "case": case,
        "subset": subset_name(combination),
        "modalities": len(combination),
        "policy": job.policy.describe(),
        "min_enhancing": job.settings.min_enhancing,
        "model_hash": job.run.model_hash[:DIGITS],
    }


def _write(job: _Job, rows: list[Row], identity: dict[str, Any]) -> None:
    if not rows:
        names = ", ".join(subset_name(s) for s in job.subsets)
        raise UsageError(f"no test case has all modalities of any of: {names}; choose others with -m")
    table = write_metrics(job.out / "metrics.tsv", rows)
    counts = {
        "cases": int(table["case"].nunique()),
        "cases_by_subset": {str(k): int(v) for k, v in table.groupby("subset")["case"].nunique().items()},
        "device": str(job.device),
    }
    write_json(job.out / "evaluation.json", describe(identity, job.policy, counts))

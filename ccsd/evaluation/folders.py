"""`ccsd evaluate --pred DIR --ref DIR --out DIR`: score any segmentations against references, without a model."""

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from ccsd.config import Evaluation
from ccsd.errors import UsageError
from ccsd.evaluation.finished_cases import Row
from ccsd.evaluation.pairs import GIVEN, Pair, find_segmentations, find_subsets, match
from ccsd.evaluation.provenance import describe
from ccsd.evaluation.segmentation import check_same_grid, label_values, load
from ccsd.evaluation.settings import policy_of
from ccsd.evaluation.tables import write_json, write_metrics
from ccsd.metrics import Policy, Reference
from preprocess.progress import track
from preprocess.source.labels import CONVENTIONS, LabelConvention


@dataclass(frozen=True)
class _Job:
    pairs: Sequence[tuple[str, Pair]]
    pred_convention: LabelConvention
    ref_convention: LabelConvention
    settings: Evaluation
    policy: Policy
    name: str
    ignore_affine: bool


def evaluate_folders(
    pred: Path,
    ref: Path,
    out: Path,
    settings: Evaluation | None = None,
    *,
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
        Folders with NIfTI files at any depth and of any naming (see `pairs`). Where `pred` has folders named after
        combinations of modalities, as `ccsd evaluate --model` writes them, each is scored as its own combination.
    out
        Folder for `metrics.tsv` and `evaluation.json`.
    settings
        Policy and clean-up; the defaults of the configuration without it.
    pred_labels, ref_labels
        Name of the label convention, or `auto`: 4 means ET until BraTS 2021, 3 from 2023 on.
    ignore_affine
        Compare voxel by voxel although the files lie in different places, for files that lost their header.
    partial
        Leave references without a prediction out instead of refusing.
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
    references = find_segmentations(ref)
    folders = find_subsets(pred)
    pairs = [(name, pair) for name, folder in folders.items() for pair in _match(folder, references, partial)]
    scored = sorted({pair.case for _, pair in pairs})
    job = _Job(
        pairs=pairs,
        pred_convention=convention_of("--pred-labels", pred_labels, (p.prediction for _, p in pairs)),
        ref_convention=convention_of("--ref-labels", ref_labels, (p.reference for _, p in pairs)),
        settings=settings,
        policy=policy_of(settings),
        name=pred.resolve().name,
        ignore_affine=ignore_affine,
    )
    rows = [row for case in _score_all(job, workers) for row in case]
    table = write_metrics(out / "metrics.tsv", rows)
    identity = {
        "experiment": job.name,
        "seed": None,
        "model_hash": None,
        "split_hash": None,
        "cases": scored,
        "subsets": sorted(set(table["subset"])),
        "predictions": str(pred),
        "references": str(ref),
        "prediction_labels": f"{job.pred_convention.name}: {job.pred_convention}",
        "reference_labels": f"{job.ref_convention.name}: {job.ref_convention}",
        "ignore_affine": ignore_affine,
        "settings": settings.model_dump(mode="json", exclude={"subsets", "subsets_per_job", "overlap", "flips"}),
    }
    write_json(out / "evaluation.json", describe(identity, job.policy, {"cases": len(scored)}))
    return out / "metrics.tsv"


def convention_of(option: str, name: str, paths: Iterable[Path]) -> LabelConvention:
    """Return the convention by its name, or the one that fits what all files have together."""
    if name != "auto":
        if name not in CONVENTIONS:
            raise UsageError(f"{option} {name}: unknown label convention; allowed: auto, {', '.join(CONVENTIONS)}")
        return CONVENTIONS[name]
    found: set[int | float] = set()
    for path in paths:
        found |= label_values(path)
    # Without 3 and 4 the two mean the same; the older one comes first.
    for convention in (CONVENTIONS["brats2020"], CONVENTIONS["brats2023"]):
        if found <= {0, *convention.values}:
            print(f"{option}: reading labels as {convention.name} ({convention})", file=sys.stderr)
            return convention
    listed = ", ".join(str(value) for value in sorted(found))
    raise UsageError(
        f"the files have labels {listed}, which fit no convention; name one: {option} {'|'.join(CONVENTIONS)}"
    )


def _match(folder: Path, references: dict[str, Path], partial: bool) -> list[Pair]:
    pairs, extra = match(find_segmentations(folder), references, partial=partial)
    if len(pairs) < len(references):
        print(f"{folder}: {len(references) - len(pairs)} references have no prediction, left out", file=sys.stderr)
    if extra:
        print(f"{folder}: {len(extra)} predictions have no reference and are left out", file=sys.stderr)
    return pairs


def _score_all(job: _Job, workers: int) -> Iterable[list[Row]]:
    score = partial(_score_pair, job)
    total = len(job.pairs)
    if workers <= 1:
        yield from track((score(item) for item in job.pairs), total, "scoring")
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        yield from track(pool.map(score, job.pairs), total, "scoring")


def _score_pair(job: _Job, item: tuple[str, Pair]) -> list[Row]:
    name, pair = item
    predicted = load(pair.prediction, job.pred_convention)
    expected = load(pair.reference, job.ref_convention)
    check_same_grid(predicted, expected, ignore_place=job.ignore_affine)
    shared = {
        "experiment": job.name,
        "case": pair.case,
        "subset": name,
        "modalities": None if name == GIVEN else name.count("+") + 1,
        "policy": job.policy.describe(),
        "min_enhancing": job.settings.min_enhancing,
    }
    rows = Reference(expected.labels, expected.spacing, job.policy).score(predicted.labels, job.settings.min_enhancing)
    return [{**shared, **row} for row in rows]

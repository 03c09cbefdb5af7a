"""Does `ccsd calibrate` hold on cases that nobody has seen? Calibrated by one cohort of phantoms, tried on others.

    python benchmarks/calibration.py --model RUN [--cases 60] [--workers 2]

Three cohorts of new phantoms, 64^3: of the difficulty of the training (for the calibration, and for the test), and of a
greater one. Segments all combinations of each and keeps confidence, Dice and agreement (mean Dice with what the
combination's own subsets make of the case) in `points-COHORT.tsv`. Then tables: how often the interval holds the Dice,
how wide it is, rank correlations of expectation and Dice, over all and within combinations, and the share of the worst
tenth of the segmentations that are among the tenth and the fifth with the lowest expectation.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ccsd.evaluation.calibrate import Point, fitted
from ccsd.inference.case import segment_case
from ccsd.inference.ensemble import load_ensemble, read_members
from ccsd.metrics.regions import region_mask
from ccsd.report.expected import held, with_expected
from preprocess.convert import convert
from preprocess.phantom.cohort import write_cohort
from preprocess.store.reader import CaseStore, list_cases

COHORTS = {"calibrate": (101, None), "test": (202, None), "harder": (303, 0.9)}
"""Seed and difficulty; None: that of the training."""


def main() -> None:
    """Measure and print."""
    options = _arguments()
    points = {name: cohort_points(options, name) for name in COHORTS}
    members = read_members(options.model)
    known = [Point(*row) for row in points["calibrate"][list(Point.__annotations__)].itertuples(index=False)]
    calibration = fitted(known, members, members[0].config.evaluation, options.level)
    for name in list(COHORTS)[1:]:
        table = points[name].rename(columns={"sequences": "modalities"}).assign(model_hash="this")
        table = with_expected(table, {"this": calibration})
        print(f"\n{name}: {table['case'].nunique()} cases\n")
        print(pd.DataFrame(map(asdict, held(table))).to_string(index=False, float_format="%.2f"))
        print(f"\nadded by agreement, {name}\n")
        print(added_table(points["calibrate"], table).to_string(index=False, float_format="%.3f"))


def added_table(known: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean error of what is expected, and of lines through one or both signals, fitted on known cases."""
    rows = []
    for (region, sequences), part in _by_curve(table):
        own = known[(known["region"] == region) & (known["sequences"] == sequences)]
        row: dict[str, Any] = {"region": region, "sequences": sequences}
        row["calibrated"] = (part["dice"] - part["expected"]).abs().mean()
        for signals in (["confidence"], ["agreement"], ["confidence", "agreement"]):
            if sequences > 1 or signals == ["confidence"]:
                design = [np.column_stack([np.ones(len(t)), t[signals]]) for t in (own, part)]
                weights, *_ = np.linalg.lstsq(design[0], own["dice"], rcond=None)
                miss = part["dice"] - np.clip(design[1] @ weights, 0, 1)
                row[" + ".join(signals)] = miss.abs().mean()
        rows.append(row)
    return pd.DataFrame(rows)


def _by_curve(table: pd.DataFrame) -> Iterator[tuple[tuple[str, int], pd.DataFrame]]:
    yield from table.groupby(["region", "modalities"], sort=False)


def cohort_points(options: Namespace, name: str) -> pd.DataFrame:
    """Return the points of a cohort; phantoms and points are made on first use."""
    path = options.work / f"points-{name}.tsv"
    if not path.exists():
        seed, difficulty = COHORTS[name]
        config = read_members(options.model)[0].config
        trained = config.phantom.difficulty if config.phantom is not None else 0.5
        source, stores = options.work / f"source-{name}", options.work / f"stores-{name}"
        about = {"size": (64, 64, 64), "seed": seed, "difficulty": difficulty or trained, "task": config.task}
        list(write_cohort(source, cases=options.cases, **about))
        convert(source, stores, task=config.task, workers=options.workers)
        with get_context("spawn").Pool(options.workers, partial(torch.set_num_threads, 1)) as pool:
            work = pool.imap(partial(case_points, options.model, stores), list_cases(stores))
            pd.DataFrame([row for rows in work for row in rows]).to_csv(path, sep="\t", index=False)
    return pd.read_csv(path, sep="\t")


def case_points(model: Path, stores: Path, case: str) -> list[dict[str, Any]]:
    """Return a row per combination and region of a case that is painted."""
    ensemble, store = load_ensemble(read_members(model)), CaseStore(stores, case)
    task = ensemble.task
    image, reference = store.read_channels(task.modalities), store.read_label()
    expected = {region: region_mask(reference, region, task) for region in task.regions}
    subsets = [task.subset(name) for name in task.subset_names]
    masks, rows = {}, []
    spacing, device = store.meta.geometry.spacing, torch.device("cpu")
    found = segment_case(ensemble, image, spacing, subsets, ensemble.settings, device)
    for subset, one in zip(subsets, found, strict=True):
        labels = one.labels.numpy()
        for region, sure in zip(task.regions, one.confidence.tolist(), strict=True):
            mask = masks[subset, region] = region_mask(labels, region, task)
            smaller = [dice(mask, masks[s, region]) for s in subsets if set(s) < set(subset)]  # which come before
            if not np.isnan(sure):
                about = {"case": case, "subset": "+".join(subset), "sequences": len(subset), "region": region}
                agreement = np.mean(smaller) if smaller else np.nan
                rows.append({**about, "confidence": sure, "dice": dice(mask, expected[region]), "agreement": agreement})
    return rows


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Dice of two masks, 1 of two that are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0


def _arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a finished run on phantoms")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent.parent / "build/benchmarks/calibration")
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--level", type=float, default=0.9)
    return parser.parse_args()


if __name__ == "__main__":
    main()

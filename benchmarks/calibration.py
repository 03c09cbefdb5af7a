"""How well a calibration holds on new cases: `ccsd calibrate` on one cohort of phantoms, tried on others.

    python benchmarks/calibration.py --model RUN [--cases 60] [--workers 2] [--others RUN ...]

There are three cohorts of new phantoms, 64^3: two of the difficulty of the training (for the calibration and for the
test), and a harder one. The script segments all combinations of each case and writes confidence, Dice and agreement
(mean Dice with the segmentations from the combination's own subsets) to `points-COHORT.tsv`. Then it prints tables: how
often the Dice is in the interval, how wide the interval is, rank correlations of expected and actual Dice, over all and
within combinations, and the share of the worst tenth of the segmentations that is in the tenth and the fifth with the
lowest expected Dice; what other curves and widths would give; and what agreement would add.

With --others (trainings on the same data), it also measures what would be added by the agreement of mirror images (mean
Dice of a segmentation with those of the image mirrored along one axis) and of an ensemble (with those of the other
trainings), on the test cohort, and writes it to `signals-test.tsv`.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from ccsd.evaluation import fit
from ccsd.evaluation.calibrate import Point, fitted
from ccsd.inference.case import segment_case
from ccsd.inference.ensemble import Ensemble, load_ensemble, read_members
from ccsd.metrics.regions import region_mask
from ccsd.report.expected import held, with_expected
from preprocess.convert import convert
from preprocess.phantom.cohort import write_cohort
from preprocess.store.meta import patient_of
from preprocess.store.reader import CaseStore, list_cases
from preprocess.task import Subset

COHORTS = {"calibrate": (101, None), "test": (202, None), "harder": (303, 0.9)}
"""Seed and difficulty; None: that of the training."""
HALVES = 10
"""How often a cohort is halved by patients, to fit on one half and try on the other."""
CONFIDENCE = ["confidence"]


def main() -> None:
    """Measure and print."""
    options = _arguments()
    points = {name: cohort_points(options, name) for name in COHORTS}
    members = read_members(options.model)
    known = [Point(*row) for row in points["calibrate"][[f.name for f in fields(Point)]].itertuples(index=False)]
    patients = {point.case: patient_of(point.case) for point in known}
    calibration = fitted(known, patients, members, members[0].config.evaluation, options.level)
    print(f"calibrated with {calibration.cases} cases of {calibration.patients} patients")
    for name in list(COHORTS)[1:]:
        table = points[name].rename(columns={"sequences": "modalities"}).assign(model_hash="this")
        table = with_expected(table, {"this": calibration})
        cases = table["case"].unique()
        show(f"{name}: {len(cases)} cases of {len(set(map(patient_of, cases)))} patients", held_table(table), 2)
        show(f"rank correlation within each combination, {name}", within_table(table, [*CONFIDENCE, "agreement"]), 2)
        show(f"added by agreement, {name}", added_table(points["calibrate"], table), 3)
    show("other curves and widths, halves of the calibration cohort", curves_table(points["calibrate"]), 3)
    if options.others:
        table = cohort_points(options, "test", "signals")
        signals = ["mirrors", "members"]
        show(f"disagreement, {table['case'].nunique()} test cases: rank", within_table(table, CONFIDENCE + signals), 2)
        show("mean error of lines through it, halves of these cases", lines_table(table, signals), 3)


def show(title: str, table: pd.DataFrame, digits: int) -> None:
    """Print a table."""
    print(f"\n{title}\n\n{table.to_string(index=False, float_format=f'%.{digits}f')}")


def held_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return how well expectations hold, as in the report, and the mean confidence."""
    rows = pd.DataFrame(map(asdict, held(table)))
    own = [table[(table["region"] == r) & (table["modalities"].isin([s]) | np.isnan(s))] for r, s in
           zip(rows["region"], rows["sequences"].astype(float), strict=True)]  # fmt: skip
    return rows.assign(
        confidence=[part["confidence"].mean() for part in own],
        sequences=["all" if np.isnan(size) else f"{size:.0f}" for size in rows["sequences"].astype(float)],
    )


def within_table(table: pd.DataFrame, signals: Sequence[str]) -> pd.DataFrame:
    """Return Spearman's correlation of signals and Dice within each combination, and means with and without T1ce."""
    rows = []
    for (region, subset), part in table.groupby(["region", "subset"], sort=False):
        ranks = {name: part[name].corr(part["dice"], "spearman") for name in signals}
        rows.append({"region": region, "subset": subset, "t1ce": "t1ce" in subset, **ranks})
    single = pd.DataFrame(rows)
    means = single.groupby(["region", "t1ce"], sort=False)[list(signals)].mean().reset_index()
    return pd.concat([single, means.assign(subset=["with" if has else "without" for has in means["t1ce"]])])


def added_table(known: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean error of the expected Dice, and of lines through one or both signals, fitted to known cases."""
    rows = []
    for (region, sequences), part in table.groupby(["region", "modalities"], sort=False):
        own = known[(known["region"] == region) & (known["sequences"] == sequences)]
        row: dict[str, Any] = {"region": region, "sequences": sequences}
        row["calibrated"] = (part["dice"] - part["expected"]).abs().mean()
        for signals in (CONFIDENCE, ["agreement"], [*CONFIDENCE, "agreement"]):
            if sequences > 1 or signals == CONFIDENCE:
                row[" + ".join(signals)] = line_error(own, part, signals)
        rows.append(row)
    return pd.DataFrame(rows)


def lines_table(table: pd.DataFrame, signals: Sequence[str]) -> pd.DataFrame:
    """Return the mean error of lines through confidence, through each other signal, and through both."""
    tried = [CONFIDENCE, *([name] for name in signals), *([*CONFIDENCE, name] for name in signals)]
    rows = [
        {
            "region": region,
            "sequences": sequences,
            **{" + ".join(names): line_error(own, part, names) for names in tried},
        }
        for region, sequences, own, part in _halves(table)
    ]
    return pd.DataFrame(rows).groupby(["region", "sequences"], sort=False).mean().reset_index()


def line_error(known: pd.DataFrame, part: pd.DataFrame, signals: Sequence[str]) -> float:
    """Return the mean error of the Dice predicted from signals by least squares."""
    design = [np.column_stack([np.ones(len(t)), t[list(signals)]]) for t in (known, part)]
    weights, *_ = np.linalg.lstsq(design[0], known["dice"], rcond=None)
    return float((part["dice"] - np.clip(design[1] @ weights, 0, 1)).abs().mean())


def curves_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return errors of isotonic curves and of lines, and intervals of constant width and of the width in use."""
    rows = []
    for region, sequences, own, part in _halves(table):
        row: dict[str, Any] = {"region": region, "sequences": sequences, "line": line_error(own, part, CONFIDENCE)}
        arrays = own["case"].map(patient_of).to_numpy(), own["confidence"].to_numpy(), own["dice"].to_numpy()
        doubtful = part["confidence"] <= part["confidence"].quantile(1 / 3)
        for name, scale in (("scaled", fit.scale), ("one width", np.ones_like)):
            with patch.object(fit, "scale", scale):
                curve = fit.fit(*arrays, 0.9)
            ends = (
                np.interp(part["confidence"], curve["confidence"], curve[end]) for end in ("expected", "low", "high")
            )
            expected, low, high = ends
            inside = (low <= part["dice"]) & (part["dice"] <= high)
            row["isotonic"] = (part["dice"] - expected).abs().mean()
            row |= {f"{name}: held": inside.mean(), f"{name}: width": (high - low).mean()}
            row[f"{name}: held in the lowest third"] = inside[doubtful].mean()
        rows.append(row)
    found = pd.DataFrame(rows).groupby(["region", "sequences"], sort=False).mean().reset_index()
    return pd.concat([found, found.mean(numeric_only=True).to_frame().T.assign(region="mean", sequences="")])


def _halves(table: pd.DataFrame) -> Iterator[tuple[str, int, pd.DataFrame, pd.DataFrame]]:
    """Yield region, number of sequences and their points in two halves of the patients, for several random halves."""
    rng, patient = np.random.default_rng(0), table["case"].map(patient_of)
    for _ in range(HALVES):
        order = rng.permutation(patient.unique())
        first = patient.isin(order[: len(order) // 2])
        for (region, sequences), part in table.groupby(["region", "sequences"], sort=False):
            yield str(region), int(sequences), part[first[part.index]], part[~first[part.index]]


def cohort_points(options: Namespace, name: str, what: str = "points") -> pd.DataFrame:
    """Return the points, or signals, of a cohort; phantoms and tables are created on first use."""
    path = options.work / f"{what}-{name}.tsv"
    if not path.exists():
        stores = cohort_stores(options, name)
        of_case = partial(case_points, options.model, stores)
        if what == "signals":
            of_case = partial(case_signals, [options.model, *options.others], stores)
        with get_context("spawn").Pool(options.workers, partial(torch.set_num_threads, 1)) as pool:
            rows = [row for rows in pool.imap(of_case, list_cases(stores)) for row in rows]
        pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
    return pd.read_csv(path, sep="\t")


def cohort_stores(options: Namespace, name: str) -> Path:
    """Return the converted cases of a cohort."""
    source, stores = (options.work / f"{part}-{name}" for part in ("source", "stores"))
    if not (stores / "files.tsv").exists():
        seed, difficulty = COHORTS[name]
        config = read_members(options.model)[0].config
        trained = config.phantom.difficulty if config.phantom is not None else 0.5
        about = {"size": (64, 64, 64), "seed": seed, "difficulty": difficulty or trained, "task": config.task}
        list(write_cohort(source, cases=options.cases, **about))
        convert(source, stores, task=config.task, workers=options.workers)
    return stores


def case_points(model: Path, stores: Path, case: str) -> list[dict[str, Any]]:
    """Return a row for each combination and painted region of a case."""
    ensemble, store = load_ensemble(read_members(model)), CaseStore(stores, case)
    masks, sure = segmented(ensemble, store)
    rows = []
    for subset, region, about in _scored(ensemble, store, masks, sure):
        smaller = [dice(masks[subset, region], masks[other, region]) for other, name in masks
                   if name == region and set(other) < set(subset)]  # fmt: skip
        rows.append({**about, "agreement": np.mean(smaller) if smaller else np.nan})
    return rows


def case_signals(models: Sequence[Path], stores: Path, case: str) -> list[dict[str, Any]]:
    """Return the same rows with the agreement of mirror images and of other models with the first model."""
    first, *others = [load_ensemble(read_members(model)) for model in models]
    store = CaseStore(stores, case)
    masks, sure = segmented(first, store)
    signals = {
        "mirrors": [segmented(first, store, axis)[0] for axis in (1, 2, 3)],
        "members": [segmented(other, store)[0] for other in others],
    }
    rows = []
    for subset, region, about in _scored(first, store, masks, sure):
        own = masks[subset, region]
        rows.append(
            {**about, **{n: np.mean([dice(own, s[subset, region]) for s in found]) for n, found in signals.items()}}
        )
    return rows


Masks = dict[tuple[Subset, str], Any]


def segmented(ensemble: Ensemble, store: CaseStore, axis: int | None = None) -> tuple[Masks, Masks]:
    """Return masks and confidence by combination and region; the image is mirrored along `axis`, if given."""
    task = ensemble.task
    image = store.read_channels(task.modalities)
    image = image if axis is None else np.flip(image, axis).copy()
    subsets = [task.subset(name) for name in task.subset_names]
    masks, sure = {}, {}
    spacing, device = store.meta.geometry.spacing, torch.device("cpu")
    found = segment_case(ensemble, image, spacing, subsets, ensemble.settings, device)
    for subset, one in zip(subsets, found, strict=True):
        labels = one.labels.numpy() if axis is None else np.flip(one.labels.numpy(), axis - 1)
        for region, value in zip(task.regions, one.confidence.tolist(), strict=True):
            masks[subset, region], sure[subset, region] = region_mask(labels, region, task), value
    return masks, sure


def _scored(
    ensemble: Ensemble, store: CaseStore, masks: Masks, sure: Masks
) -> Iterator[tuple[Subset, str, dict[str, Any]]]:
    """Yield combination, region and the columns of a point, for painted regions."""
    reference = store.read_label()
    expected = {region: region_mask(reference, region, ensemble.task) for region in ensemble.task.regions}
    for (subset, region), mask in masks.items():
        if not np.isnan(sure[subset, region]):
            about = {"case": store.case, "subset": "+".join(subset), "sequences": len(subset), "region": region}
            own = {"confidence": sure[subset, region], "dice": dice(mask, expected[region])}
            yield subset, region, {**about, **own}


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Dice of two masks; 1 if both are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0


def _arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a finished run on phantoms")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="other runs on the same data")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent.parent / "build/benchmarks/calibration")
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--level", type=float, default=0.9)
    return parser.parse_args()


if __name__ == "__main__":
    main()

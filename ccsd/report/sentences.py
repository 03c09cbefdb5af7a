"""The summary of a study in sentences, made from its numbers."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ccsd.report.statistics import FULL
from ccsd.report.study import Study
from preprocess.convert import read_refusals
from preprocess.modalities import MODALITIES, REGIONS, SUBSET_ORDER
from preprocess.phantom.cohort import MARK

FEW_CASES = 20
SHOWN = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
NAMES = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}
NOTEWORTHY = 0.01
"""A smaller change of the mean Dice is not worth a sentence."""


Rows = dict[tuple[str, ...], dict[str, Any]]
"""Rows of the summary by experiment, scope, name, region and metric."""


def display(name: str) -> str:
    """Return a combination as people write it: `FLAIR + T1ce`."""
    return " + ".join(SHOWN.get(part, part) for part in name.split("+"))


def summary_sentences(study: Study, summary: pd.DataFrame, verdicts: Iterable[str] = ()) -> list[str]:
    """Return what a reader should know first: the verdicts on several experiments, the numbers of the best one."""
    rows = by_key(summary)
    names = [str(name) for name in summary["experiment"].unique()]
    best = best_experiment(summary)
    about_best = _experiment(rows, best, several=len(names) > 1, subsets=study.metrics["subset"].nunique())
    return [*_scope(study, names), *verdicts, *about_best]


def warnings(study: Study, summary: pd.DataFrame) -> list[str]:
    """Return why the numbers may mislead."""
    found = []
    cases = int(study.metrics["case"].nunique())
    if is_phantom(study):
        found.append("The cases are computer-made phantoms: the numbers show that the software works, nothing else.")
    if cases < FEW_CASES:
        found.append(
            f"{cases} test cases are few: read the intervals, not the means alone."
            if cases > 1
            else "One test case says nothing about others, and there are no intervals."
        )
    refused = read_refusals(study.root / "data")
    if refused:
        listed = "; ".join(f"{case}: {reason}" for case, reason in refused.items())
        found.append(f"Left out, because the conversion refused them: {listed}.")
    models = summary.groupby("experiment")["model_hash"].first()
    mixed = [str(e) for e in models.index if _several_models(study, str(e))]
    found += [f"Experiment {e} has scores of different models under one seed; evaluate it again." for e in mixed]
    if len(models) > 1 and (summary["seeds"] == 1).any():
        found.append(
            "An experiment was trained with one seed only: another seed alone may change its scores by as much as "
            "experiments differ."
        )
    if len(study.metrics["split_hash"].dropna().unique()) > 1:
        found.append("The scores come from different splits and must not be compared.")
    if len(study.metrics["policy"].unique()) > 1:
        found.append("Empty regions were scored by different policies; evaluate again with one of them.")
    return found


def is_phantom(study: Study) -> bool:
    """Whether the study was made on generated cases: by its configuration, or by the mark that their folder bears."""
    configs = [study.config, *(run.info.get("config") or {} for run in study.trainings)]
    return any(config.get("phantom") or (Path(config.get("source") or "") / MARK).is_file() for config in configs)


def by_key(summary: pd.DataFrame) -> Rows:
    """Return the rows of the summary by experiment, scope, name, region and metric."""
    keys = summary[["experiment", "scope", "name", "region", "metric"]].itertuples(index=False, name=None)
    rows: list[dict[str, Any]] = [
        dict(zip(summary.columns, row, strict=True)) for row in summary.itertuples(index=False)
    ]
    return dict(zip(keys, rows, strict=True))


def best_experiment(summary: pd.DataFrame) -> str:
    """Return the experiment with the highest mean Dice over all combinations and regions."""
    part = summary[(summary["scope"] == "overall") & (summary["metric"] == "dice")]
    means = part.groupby("experiment", sort=False)["mean"].mean().fillna(0)
    return str(means.idxmax())


def counted(number: int, word: str) -> str:
    """Return `1 case`, `2 cases`."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def with_interval(row: dict[str, Any], digits: int = 2) -> str:
    """Return `0.85 (0.80 to 0.89)`, without the interval where there is none."""
    text = f"{row['mean']:.{digits}f}"
    if not math.isnan(row["low"]):
        text += f" ({row['low']:.{digits}f} to {row['high']:.{digits}f})"
    return text


def listed(parts: list[str]) -> str:
    """Return `a, b and c`."""
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]


def _several_models(study: Study, experiment: str) -> bool:
    part = study.metrics[study.metrics["experiment"] == experiment]
    return any(len(rows["model_hash"].unique()) > 1 for _, rows in part.groupby("seed"))


def _scope(study: Study, experiments: list[str]) -> Iterator[str]:
    cases, subsets = study.metrics["case"].nunique(), study.metrics["subset"].nunique()
    trained = f"{len(experiments)} experiments ({', '.join(experiments)})" if len(experiments) > 1 else "one experiment"
    every = "every one of the 15" if subsets == len(SUBSET_ORDER) else f"{subsets}"
    was = "was" if cases == 1 else "were"
    combinations = "combination" if subsets == 1 else "combinations"
    yield f"{counted(cases, 'held-out case')} {was} segmented from {every} {combinations} of sequences, by {trained}."


def _experiment(rows: Rows, experiment: str, *, several: bool, subsets: int) -> Iterator[str]:
    start = f"{experiment}: with" if several else "With"
    full = [rows.get((experiment, "subset", FULL, region, "dice")) for region in REGIONS]
    if all(full):
        parts = [f"{with_interval(row)} for {NAMES[r]}" for r, row in zip(REGIONS, full, strict=True) if row]
        yield f"{start} all four sequences the mean Dice is {listed(parts)}."
    overall = [rows.get((experiment, "overall", "all", region, "dice")) for region in REGIONS]
    if subsets > 1 and all(overall):
        parts = [f"{with_interval(row)} ({r})" for r, row in zip(REGIONS, overall, strict=True) if row]
        subject = "it" if all(full) else "the mean Dice"
        every = "all combinations" if subsets == len(SUBSET_ORDER) else f"these {subsets} combinations"
        yield f"Averaged over {every} {subject} is {listed(parts)}."
    yield from _removal(rows, experiment)


def _removal(rows: Rows, experiment: str) -> Iterator[str]:
    for region in REGIONS:
        drops = leave_one_out(rows, experiment, region)
        if not drops:
            continue
        worst = min(drops, key=lambda name: drops[name])
        if drops[worst] < -NOTEWORTHY:
            yield (
                f"Without {SHOWN[worst]} the {NAMES[region]} loses most: its mean Dice falls by {-drops[worst]:.2f}."
            )


def leave_one_out(rows: Rows, experiment: str, region: str, metric: str = "dice") -> dict[str, float]:
    """Return how the mean changes when one sequence is taken from the full set, by sequence."""
    found: dict[str, float] = {}
    for name in MODALITIES:
        rest = "+".join(m for m in MODALITIES if m != name)
        row = rows.get((experiment, "subset", rest, region, metric))
        if row and not math.isnan(float(row["drop"])):
            found[name] = float(row["drop"])
    return found

"""Warnings that the numbers of a report may mislead."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pandas as pd

from ccsd.report.certainty import comparable
from ccsd.report.results import StudyResults, outdated_evaluations, painted_anywhere
from ccsd.report.sentences import listed
from ccsd.report.tables import OVERALL
from preprocess.dataset import read_rejections
from preprocess.errors import InputError
from preprocess.folds import read_folds
from preprocess.phantom.cohort import MARK

FEW_CASES = 20


def warnings(study: StudyResults, summary: pd.DataFrame, comparison: pd.DataFrame) -> list[str]:
    """Return the reasons why the numbers may mislead."""
    found = []
    cases = int(study.metrics["case"].nunique())
    if is_phantom(study):
        found.append("The cases are computer-generated phantoms: the numbers only show that the software works.")
    if cases < FEW_CASES:
        found.append(
            f"{cases} test cases are few: read the intervals, not only the means."
            if cases > 1
            else "A single test case does not represent others, and there are no intervals."
        )
    rejected = read_rejections(study.folder.data)
    if rejected:
        reasons = "; ".join(f"{case}: {reason}" for case, reason in rejected.items())
        found.append(f"Left out, because the conversion rejected them: {reasons}.")
    models = summary.groupby("experiment")["model_hash"].first()
    mixed = [str(e) for e in models.index if _several_models(study, str(e))]
    found += [f"Experiment {e} has scores of different models under one seed; evaluate it again." for e in mixed]
    if outdated := outdated_evaluations(study):
        found.append(
            f"The weights that {listed(outdated)} scored are not the current weights of the runs; evaluate again, or "
            f"remove what is no longer needed from {study.folder.root.name}/evaluation."
        )
    if earlier := painted_anywhere(study):
        found.append(
            f"{listed(earlier)} come from an earlier version, which also segmented tissue outside the brain: on "
            "phantoms it scored a little lower (docs/explanation/results.md); evaluate again before comparing."
        )
    if len(models) > 1 and _one_seed_only(study.metrics):
        found.append(
            "An experiment was trained with only one seed: another seed may change its scores by as much as the "
            "experiments differ."
        )
    if len(study.metrics["split_hash"].dropna().unique()) > 1:
        found.append("The scores come from different splits and must not be compared.")
    found += [*_from_elsewhere(study.metrics), *_apart(summary, comparison)]
    found += [*_scored_differently(study.metrics), *_missing_folds(study)]
    found += [
        f"{run.name} was fine-tuned from a run that was trained with another split of the same data: it may have seen "
        "cases that are tested here."
        for run in study.trainings
        if run.record and run.record.may_know_test_cases
    ]
    if len(study.metrics["policy"].unique()) > 1:
        found.append("Empty regions were scored with different policies; evaluate again with one of them.")
    return found


def _from_elsewhere(metrics: pd.DataFrame) -> Iterator[str]:
    """Warn of label maps that were scored without a model."""
    if names := [str(name) for name in metrics.loc[metrics["model_hash"].isna(), "experiment"].unique()]:
        yield (
            f"The label maps of {listed(names)} come from elsewhere: it is not known here whether the method that made "
            "them was trained on cases that are scored."
        )


def _apart(summary: pd.DataFrame, comparison: pd.DataFrame) -> Iterator[str]:
    """Warn of experiments that have no case in common."""
    shared = comparison[(comparison["scope"] == OVERALL[0]) & (comparison["cases"] > 0)]
    pairs = shared[["experiment", "baseline"]].astype(str).itertuples(index=False, name=None)
    groups = comparable([str(name) for name in summary["experiment"].unique()], list(pairs))
    if len(groups) > 1:
        yield (
            f"Experiments without a case in common cannot be compared: {' | '.join(listed(group) for group in groups)}."
        )


def _scored_differently(metrics: pd.DataFrame) -> Iterator[str]:
    """Warn of experiments that have only part of their cases and combinations in common."""
    scored = {
        str(name): set(part[["case", "subset"]].itertuples(index=False, name=None))
        for name, part in metrics.groupby("experiment", sort=False)
    }
    pairs = [pair for pair in combinations(scored, 2) if scored[pair[0]] & scored[pair[1]]]
    if unequal := [name for pair in pairs if scored[pair[0]] != scored[pair[1]] for name in pair]:
        yield (
            f"{listed(list(dict.fromkeys(unequal)))} were not scored on the same cases and combinations: do not "
            "compare their means, but their differences, which only use what both have."
        )


def _missing_folds(study: StudyResults) -> Iterator[str]:
    """Warn of folds in which an experiment was not scored."""
    try:
        folds = read_folds(study.folder.data)
    except InputError:  # the report does not need the split otherwise
        return
    there = set(folds.numbers) if folds else set()
    for experiment, part in study.metrics.dropna(subset="fold").groupby("experiment", sort=False):
        if missing := sorted(there - set(part["fold"])):
            yield (
                f"{experiment} was not scored in {listed([f'fold {fold}' for fold in missing])}: its means lack the "
                "cases held out there."
            )


def is_phantom(study: StudyResults) -> bool:
    """Return whether the cases are phantoms, according to the configuration or to the mark in their folder."""
    configs = [study.config, *(run.record.config for run in study.trainings if run.record)]
    return any(config.get("phantom") or (Path(config.get("source") or "") / MARK).is_file() for config in configs)


def _one_seed_only(metrics: pd.DataFrame) -> bool:
    trained = metrics[["experiment", "seed"]].dropna().drop_duplicates()
    return bool((trained["experiment"].value_counts() == 1).any())


def _several_models(study: StudyResults, experiment: str) -> bool:
    part = study.metrics[study.metrics["experiment"] == experiment]
    return any(len(rows["model_hash"].unique()) > 1 for _, rows in part.groupby(["seed", "fold"], dropna=False))

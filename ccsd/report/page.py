"""`ccsd report RESULTS`: write all tables of a study, and one self-contained page."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from ccsd import __version__
from ccsd.config import Evaluation
from ccsd.evaluation.tables import cleanup_text
from ccsd.records import RunRecord
from ccsd.report import charts, tables
from ccsd.report import sentences as words
from ccsd.report.cautions import warnings
from ccsd.report.expected import Held, expected_scores, held, remarks
from ccsd.report.galleries import Gallery, galleries
from ccsd.report.published import Protocol, protocol_of
from ccsd.report.results import StudyResults, TrainingResults, read_results
from ccsd.report.sentences import overview_text, verdicts
from ccsd.report.speed import speed
from ccsd.report.statistics import compare, summarise
from ccsd.report.tables import SeedMeans, seed_means
from preprocess.errors import counted
from preprocess.files import complete_or_absent, write_text
from preprocess.pictures import colour
from preprocess.task import Task, default_task


@dataclass(frozen=True)
class ExperimentSection:
    """What the page shows of one experiment."""

    name: str
    scores: list[tables.ScoreTableRow]
    more_scores: list[tables.ScoreTableRow]
    by_size: Markup | None
    distributions: Markup
    drops: list[tuple[str, list[tables.Cell]]]
    worst: list[dict[str, Any]]
    galleries: list[Gallery]
    held: list[Held]
    """How well the expected Dice holds; empty if the models are not calibrated."""
    expectations: Markup | None
    remarks: str


@dataclass(frozen=True)
class TrainingSection:
    """What the page shows of one training run."""

    name: str
    experiment: str
    record: RunRecord | None
    training: Markup | None
    removals: Markup | None
    paths: list[tuple[str, float]]
    speed: str
    """How fast it was."""


@dataclass(frozen=True)
class Report:
    """The page that was written, and the main numbers as text."""

    page: Path
    text: str


def write_report(results: Path, out: Path | None = None) -> Report:
    """Write the tables and the page of a study.

    Parameters
    ----------
    results
        `results/NAME` with `evaluation/RUN/GROUP/metrics.tsv`; training logs, converted cases and the configuration
        are shown if they exist.
    out
        The page; `results/NAME/report.html` by default. The tables go to the results folder.

    Raises
    ------
    UsageError
        If there are no scores, or scores that contradict each other.
    """
    study = read_results(results)
    summary = summarise(study.metrics, study.task)
    comparison = compare(study.metrics, study.task)
    _write_tables(study, summary, comparison)
    page = out or study.folder.report
    write_text(page, render(study, summary, comparison))
    return Report(page, "\n".join([overview_text(summary, comparison, study.task), "", *_policies(study)]))


def render(study: StudyResults, summary: pd.DataFrame, comparison: pd.DataFrame) -> str:
    """Return the page as HTML; every text that comes from files is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ccsd.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["counted"] = counted
    template = environment.get_template("report.html.j2")
    task = study.task
    leader, seeds = words.best_experiment(summary, study.metrics), seed_means(study.metrics, task)
    more = _more(study)
    return template.render(
        study=study,
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=_asset("style.css"),
        script=_asset("sort.js"),
        sentences=words.summary_sentences(study, summary, leader, verdicts(summary, comparison, task)),
        warnings=warnings(study, summary, comparison),
        experiments=[_experiment_section(study, summary, str(name), more) for name in summary["experiment"].unique()],
        runs=[_training_section(training, task) for training in study.trainings],
        leader=leader,
        comparison=_comparison(study, summary, comparison, seeds),
        columns=tables.columns(tables.MAIN, task),
        more_columns=tables.columns(more, task),
        task=task,
        inputs="any set of sequences" if len(task.modalities) > 1 else task.display_name(task.full_name),
        cleanups=cleanup_text(task, Evaluation()),
        modalities=list(task.sequences.values()),
        regions=list(task.scored_regions),
        over_all=tables.over_all(task),
        region_words=words.region_words(task),
        lesion_words=words.lesion_words(task),
        cleanup_words=words.cleanup_words(task) if more != tables.MORE else "",
        class_colours=[(task.word(name), colour(number)[1]) for name, number in task.classes.items()],
        published=_published(study),
        averages=_averages(summary, task),
        policies=_policies(study),
        config=yaml.safe_dump(study.config, sort_keys=False) if study.config else "",
    )


def _comparison(
    study: StudyResults, summary: pd.DataFrame, comparison: pd.DataFrame, seeds: SeedMeans
) -> dict[str, Any] | None:
    """Return what the page shows of several experiments side by side; None for a single one."""
    if comparison.empty:
        return None
    task = study.task
    return {
        "chart": charts.by_experiment(summary, study.metrics, task),
        "overview": tables.overview_rows(summary, task),
        "seeds": seeds,
        "overall": tables.difference_rows(comparison, task, "overall"),
        "others": tables.difference_rows(comparison, task, "size", "subset"),
    }


def _asset(name: str) -> Markup:
    return Markup(resources.files("ccsd.report").joinpath("templates", name).read_text(encoding="utf-8"))  # noqa: S704 - our own file


def _write_tables(study: StudyResults, summary: pd.DataFrame, comparison: pd.DataFrame) -> None:
    write_text(study.folder.scores, study.metrics.to_csv(sep="\t", index=False, float_format="%.9g"))
    write_text(study.folder.summary, summary.to_csv(sep="\t", index=False, float_format="%.6g"))
    write_text(study.folder.comparisons, comparison.to_csv(sep="\t", index=False, float_format="%.6g"))
    with complete_or_absent(study.folder.scores_parquet) as temporary:
        study.metrics.to_parquet(temporary, index=False)


def _more(study: StudyResults) -> tables.Shown:
    """Return the scores of the second table, with those after the clean-up if something was cleaned."""
    return tables.MORE if set(study.metrics["cleanup"]) == {"none"} else (*tables.MORE, *tables.CLEANED)


def _experiment_section(study: StudyResults, summary: pd.DataFrame, name: str, more: tables.Shown) -> ExperimentSection:
    task, expected = study.task, expected_scores(study, name)
    return ExperimentSection(
        name=name,
        scores=tables.score_table(summary, name, tables.MAIN, task),
        more_scores=tables.score_table(summary, name, more, task),
        by_size=charts.by_size(summary, study.metrics, name, task),
        distributions=charts.distributions(study.metrics, name, task),
        drops=tables.drop_table(summary, name, task),
        worst=tables.worst_cases(study, name),
        galleries=galleries(study, name),
        held=held(expected),
        expectations=None if expected.empty else charts.expectations(expected, name, task),
        remarks=remarks(study, expected),
    )


def _training_section(training: TrainingResults, task: Task) -> TrainingSection:
    return TrainingSection(
        name=training.name,
        experiment=training.name.partition("-")[0],
        record=training.record,
        training=charts.training(training, task),
        removals=charts.removals(training, task),
        paths=tables.removal_paths(training.of_kind("removal"), task),
        speed=speed(training),
    )


def _published(study: StudyResults) -> Protocol | None:
    if study.task.digest != default_task().digest:
        return None
    hashes = {str(value) for value in study.metrics["split_hash"].dropna().unique()}
    return protocol_of(hashes, int(study.metrics["subset"].nunique()))


def _averages(summary: pd.DataFrame, task: Task) -> dict[str, list[float]]:
    """Return each experiment's mean Dice over all combinations in per cent, by region."""
    wide = summary[(summary["scope"] == "overall") & (summary["metric"] == "dice")]
    wide = wide.pivot_table(index="experiment", columns="region", values="mean", sort=False)
    return {str(name): [100 * float(row[region]) for region in task.scored_regions] for name, row in wide.iterrows()}


def _policies(study: StudyResults) -> list[str]:
    return sorted({record.policy_text for record in study.evaluations.values()} - {""})

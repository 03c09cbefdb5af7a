"""Read the results of a study: scores, provenance, training logs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ccsd.errors import UsageError
from ccsd.evaluation.tables import read_metrics, scoring_label
from ccsd.inference.brain import PAINTED
from ccsd.inference.confidence import COLUMN as CONFIDENCE
from ccsd.records import EvaluationRecord, Identity, RunRecord, read_events
from ccsd.study import RECORD_FILE, SCORES_FILE, StudyFolder
from preprocess.reading import YAML_ERRORS, read_yaml
from preprocess.task import Task, reject_mixture


@dataclass(frozen=True)
class TrainingResults:
    """The results of one training run."""

    name: str
    record: RunRecord | None
    """None while it is not finished."""
    events: list[dict[str, Any]]
    """Lines of metrics.jsonl."""

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind, ordered by step; of a repeated step, the last line counts."""
        return [by_step for _, by_step in sorted({e["step"]: e for e in self.events if e.get("event") == kind}.items())]


@dataclass(frozen=True)
class StudyResults:
    """Everything that the report is made from."""

    folder: StudyFolder
    metrics: pd.DataFrame
    evaluations: dict[str, EvaluationRecord]
    """By `RUN/GROUP`."""
    trainings: list[TrainingResults]
    config: dict[str, Any]
    task: Task
    """The task of all evaluations."""

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.config.get("name", self.folder.root.resolve().name))


def read_results(root: Path) -> StudyResults:
    """Read `results/NAME`.

    Raises
    ------
    UsageError
        If there is no finished evaluation, or if two evaluations score the same case and combination differently or by
        different rules, or share a name but not a model.
    InputError
        If evaluations belong to different tasks.
    """
    folder = StudyFolder(root)
    scored = folder.evaluations()
    if not scored:
        elsewhere = next((path.parent for path in sorted(root.glob(f"**/{SCORES_FILE}")) if path.parent != root), None)
        hint = f"; {elsewhere} has scores, but is not in that place" if elsewhere else ""
        expected = folder.evaluation("RUN", "GROUP")
        raise UsageError(
            f"{root}: no scores found; expected {expected / SCORES_FILE}, which `ccsd evaluate` writes with "
            f"--out {expected}{hint}"
        )
    records = {name: EvaluationRecord.read(path) for name, path in scored.items()}
    task = _common_task({scored[name]: record.task for name, record in records.items()})
    tables = {name: read_metrics(path / SCORES_FILE) for name, path in scored.items()}
    metrics = pd.concat(tables.values(), ignore_index=True)
    metrics = metrics.drop_duplicates([name for name in metrics if name != CONFIDENCE])  # it may differ by rounding
    _reject_contradictory_scores(root, metrics, tables)
    _reject_ambiguous_names(root, metrics, tables)
    config = _read_config(folder.config)
    trainings = [_read_training(path) for path in folder.run_folders()]
    return StudyResults(folder, _in_order(metrics, config), records, trainings, config, task)


def _reject_contradictory_scores(root: Path, metrics: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> None:
    twice = metrics[metrics.duplicated(["experiment", "seed", "case", "subset", "region"], keep=False)]
    if len(twice):
        key = ["experiment", "case", "subset", "seed"]
        first = twice.iloc[0]
        same = [name for name, table in tables.items() if len(table[key].merge(twice[key].head(1)))]
        raise UsageError(
            f"{root}/evaluation: {len(twice)} scores were computed twice with different results, for example case "
            f"{first['case']} with {first['subset']}, in {' and '.join(same)}; remove the outdated folder there"
        )


def _reject_ambiguous_names(root: Path, metrics: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> None:
    """Reject scores that would be pooled under one name although they are of different things."""
    for name, part in metrics.groupby("experiment"):
        by_model = part["model_hash"].notna()
        if by_model.any() and not by_model.all():
            raise UsageError(
                f"{root}/evaluation: {name} is the name of both an experiment and label maps from elsewhere; "
                f"remove {root}/evaluation/{name}, and adopt them under another name (`ccsd adopt --as`)"
            )
        in_fold = part.loc[by_model, "fold"].notna()
        if in_fold.any() and not in_fold.all():
            bare = [key for key, table in tables.items() if name in set(table.loc[table["fold"].isna(), "experiment"])]
            raise UsageError(
                f"{root}/evaluation: {name} has scores of folds and of a training without folds; remove the "
                f"outdated ones there, such as those of the latter, {' and '.join(bare)}"
            )


def outdated_evaluations(study: StudyResults) -> list[str]:
    """Return the names of evaluations that scored weights that the runs of the study no longer have."""
    now: dict[tuple[str | None, Any, Any], set[str]] = {}
    for run in study.trainings:
        if run.record is not None:
            train, split = (run.record.config.get(section, {}) for section in ("train", "split"))
            key = run.record.experiment or run.name, train.get("seed"), split.get("fold")
            now.setdefault(key, set()).add(run.record.model_hash)

    def is_outdated(identity: Identity) -> bool:
        scored = identity.models or (identity,)
        return any(m.model_hash not in now.get((m.experiment, m.seed, m.fold), {m.model_hash}) for m in scored)

    return [name for name, record in study.evaluations.items() if is_outdated(record.identity)]


def painted_anywhere(study: StudyResults) -> list[str]:
    """Return the names of evaluations of models by an earlier version, which also painted outside the brain."""
    identities = {name: record.identity for name, record in study.evaluations.items()}
    return [
        name
        for name, identity in identities.items()
        if identity.model_hash and (identity.model_extra or {}).get("painted") != PAINTED
    ]


def _common_task(tasks: dict[Path, Task]) -> Task:
    named = [(str(path), task) for path, task in tasks.items()]
    reject_mixture(named)
    first, common = named[0]
    for path, task in named:
        if task.scoring_digest != common.scoring_digest:
            raise UsageError(
                f"{path} was scored by other rules of the task {task.name} ({scoring_label(task)}) than {first} "
                f"({scoring_label(common)}); evaluate again so that all have the same rules"
            )
    return common


def _in_order(metrics: pd.DataFrame, config: dict[str, Any]) -> pd.DataFrame:
    """Return the scores with the experiments in the order of the configuration, where baselines come first."""
    names = list(dict.fromkeys([*(config.get("experiments") or {}), *metrics["experiment"]]))
    places = metrics["experiment"].map(names.index)
    return metrics.loc[places.sort_values(kind="stable").index].reset_index(drop=True)


def _read_training(run: Path) -> TrainingResults:
    record = RunRecord.read(run) if (run / RECORD_FILE).is_file() else None
    return TrainingResults(run.name, record, read_events(run))


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, *YAML_ERRORS) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    return config if isinstance(config, dict) else {}

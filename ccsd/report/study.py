"""What a study left on the disk: scores, provenance, training logs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ccsd.config.load import YAML_ERRORS, read_yaml
from ccsd.errors import UsageError
from ccsd.evaluation.tables import read_json, read_metrics


@dataclass(frozen=True)
class Training:
    """One training run."""

    name: str
    info: dict[str, Any]
    """run.json; empty when it is not there."""
    events: list[dict[str, Any]]
    """Lines of metrics.jsonl."""

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind, in the order of their steps; a repeated step counts by its last line."""
        return [by_step for _, by_step in sorted({e["step"]: e for e in self.events if e.get("event") == kind}.items())]


@dataclass(frozen=True)
class Study:
    """Everything the report is made from."""

    root: Path
    metrics: pd.DataFrame
    evaluations: dict[str, dict[str, Any]]
    """evaluation.json by `RUN/GROUP`."""
    trainings: list[Training]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.config.get("name", self.root.resolve().name))


def read_study(root: Path) -> Study:
    """Read `results/NAME`.

    Raises
    ------
    UsageError
        If no finished evaluation is there, or two evaluations score the same case and combination differently.
    """
    paths = sorted(root.glob("evaluation/*/*/metrics.tsv"))
    if not paths:
        elsewhere = next((path.parent for path in sorted(root.glob("**/metrics.tsv")) if path.parent != root), None)
        hint = f"; {elsewhere} has scores, but lies elsewhere" if elsewhere else ""
        raise UsageError(
            f"{root}: no scores found; expected {root}/evaluation/RUN/GROUP/metrics.tsv, which `ccsd evaluate` writes "
            f"with --out {root}/evaluation/RUN/GROUP{hint}"
        )
    evaluations = {f"{p.parent.parent.name}/{p.parent.name}": read_json(p.with_name("evaluation.json")) for p in paths}
    metrics = pd.concat([read_metrics(path) for path in paths], ignore_index=True)
    keys = ["experiment", "seed", "case", "subset", "region"]
    metrics = metrics.drop_duplicates()
    twice = metrics[metrics.duplicated(keys, keep=False)]
    if len(twice):
        first = twice.iloc[0]
        raise UsageError(
            f"{root}/evaluation: {len(twice)} scores were computed twice with different results, for example case "
            f"{first['case']} with {first['subset']}; remove the outdated folder there"
        )
    config = _read_config(root)
    return Study(root, _in_order(metrics, config), evaluations, _read_trainings(root), config)


def _in_order(metrics: pd.DataFrame, config: dict[str, Any]) -> pd.DataFrame:
    """Return the scores with the experiments in the order of the configuration, where baselines come first."""
    names = list(dict.fromkeys([*(config.get("experiments") or {}), *metrics["experiment"]]))
    places = metrics["experiment"].map(names.index)
    return metrics.loc[places.sort_values(kind="stable").index].reset_index(drop=True)


def _read_trainings(root: Path) -> list[Training]:
    trainings = []
    for folder in sorted(p for p in root.glob("runs/*") if p.is_dir()):
        info = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
        trainings.append(Training(folder.name, info, _read_events(folder / "metrics.jsonl")))
    return trainings


def _read_events(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the last line of a run that was killed while writing
        if isinstance(event, dict) and isinstance(event.get("step"), int):
            events.append(event)
    return events


def _read_config(root: Path) -> dict[str, Any]:
    path = root / "config.yaml"
    if not path.is_file():
        return {}
    try:
        config = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, *YAML_ERRORS) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    return config if isinstance(config, dict) else {}

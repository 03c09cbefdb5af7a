"""All names of a study in one place: its folders and files, its runs, parts and groups, and digests of its settings.

Imports neither torch nor pandas, as the workflow and every command use this module.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import yaml

from ccsd.config.load import set_key, validate_config
from ccsd.config.schema import Config
from ccsd.config.science import EXPERIMENT_SECTIONS, science_digest
from ccsd.errors import UsageError
from ccsd.inference.brain import PAINTED
from ccsd.runs import NOT_TOGETHER, FoldPlan, members, reject_adopted_names, run_key, run_name
from preprocess.dataset import data_task
from preprocess.errors import InputError
from preprocess.files import write_text
from preprocess.folds import read_folds
from preprocess.splits import FILE as SPLIT_FILE
from preprocess.splits import Split, read_split
from preprocess.task import Task, default_task, reject_mixture, shipped_tasks

WEIGHTS, RECORD_FILE, EVENTS, TRACE = "model.safetensors", "run.json", "metrics.jsonl", "trace.json.gz"
CALIBRATION_FILE, CALIBRATIONS = "calibration.json", "calibration*.json"
"""Files of a training run."""
CHECKPOINTS, BEST, OVERLAYS, JOB = "checkpoints", "best.safetensors", "overlays", "job"
"""Folders of a training run; the first has the best validated weights."""
SCORES_FILE, EVALUATION_FILE, PREDICTIONS = "metrics.tsv", "evaluation.json", "predictions"
"""Files of an evaluation, and the folder of label maps, also for new cases."""
ADOPTED = "adopted"
"""Replaces the group of combinations if label maps come from another method."""


@dataclass(frozen=True)
class StudyFolder:
    """The folders and files of a study, whether they exist or not."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, defaults and overrides included."""
        return self.root / "config.yaml"

    @property
    def task(self) -> Path:
        """The task, if the configuration contains it in full; commands take a name or a file."""
        return self.root / "task.yaml"

    @property
    def phantoms(self) -> Path:
        """Generated cases."""
        return self.root / "phantoms"

    @property
    def data(self) -> Path:
        """Converted cases, their tables and the split."""
        return self.root / "data"

    def run(self, run: str) -> Path:
        """Folder of a training run."""
        return self.root / "runs" / run

    def evaluation(self, run: str, group: str) -> Path:
        """Folder of the scores of a run for one group of combinations."""
        return self.root / "evaluation" / run / group

    def predictions(self, model: str) -> Path:
        """Folder of the segmentations of new cases by a run or an ensemble."""
        return self.root / PREDICTIONS / model

    def run_folders(self) -> list[Path]:
        """Folders of training runs that exist, sorted."""
        return sorted(path for path in self.root.glob("runs/*") if path.is_dir())

    def evaluations(self) -> dict[str, Path]:
        """Folders that contain scores, sorted, by `RUN/GROUP`."""
        found = sorted(path.parent for path in self.root.glob(f"evaluation/*/[!.]*/{SCORES_FILE}"))
        return {f"{path.parent.name}/{path.name}": path for path in found}

    def adopted(self) -> list[Path]:
        """Tables of scores of other methods (`ccsd adopt`) that exist, sorted."""
        return sorted(self.root.glob(f"evaluation/*/{ADOPTED}/{SCORES_FILE}"))

    @property
    def scores(self) -> Path:
        """All scores, as text."""
        return self.root / SCORES_FILE

    @property
    def scores_parquet(self) -> Path:
        """All scores, for programs."""
        return self.root / "metrics.parquet"

    @property
    def summary(self) -> Path:
        """Means with intervals."""
        return self.root / "summary.tsv"

    @property
    def comparisons(self) -> Path:
        """Tests between experiments."""
        return self.root / "comparisons.tsv"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def logs(self) -> Path:
        """Logs of the workflow's jobs."""
        return self.root / "logs"

    @property
    def benchmarks(self) -> Path:
        """Time and memory of the workflow's jobs."""
        return self.root / "benchmarks"

    def mark(self, stage: str, *names: str) -> Path:
        """File that marks a stage as done, for results that Snakemake must not delete before it repeats a job."""
        return self.root.joinpath("marks", stage, *names)


class Study:
    """One configuration: the names derived from it, and what each result depends on."""

    def __init__(self, config: Config, experiments: Mapping[str, Config], task_file: str | None = None) -> None:
        self.config = config
        self.experiments = dict(experiments)
        self._task_file = task_file
        self.folds = FoldPlan.of(config)
        self.folder = StudyFolder(Path("results") / config.name)

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Self:
        """Validate a configuration, its experiments included.

        Raises
        ------
        UsageError
            If anything in it cannot be used; every problem is listed.
        """
        config = validate_config(raw, "configuration")
        experiments = {name: experiment_config(raw, config, name) for name in config.experiments}
        named = raw.get("task")
        study = cls(config, experiments, named if isinstance(named, str) else None)
        if config.ensembles and study.models == study.runs:
            reason = NOT_TOGETHER if study.folds.cannot_be_scored else "needs two seeds or more, such as seeds: [0, 1]"
            raise UsageError(f"configuration: ensembles: {reason}")
        study._reject_unfit_starts()
        reject_adopted_names(config.experiments, study.folder.adopted())
        return study

    def _reject_unfit_starts(self) -> None:
        from ccsd.start import start_of  # here, as it imports this module through records

        own = [self.folder.run(run) for run in self.runs]
        for config in self.experiments.values():
            start_of(config, *own)

    @cached_property
    def cases(self) -> list[str]:
        """Names of the cases, from file names alone, in the order in which `ccsd convert` counts its parts."""
        if self.config.phantom is not None:
            from preprocess.phantom.cohort import case_names

            return sorted(case_names(self.config.phantom.cases, self.config.task))
        from preprocess.source.layouts import discover

        assert self.config.source is not None
        return [case.case for case in discover(self.config.source, self.config.task, self.config.convert.layout)]

    @property
    def source(self) -> Path:
        """Folder that conversion reads."""
        return self.config.source or self.folder.phantoms

    @property
    def parts(self) -> list[str]:
        """Names of the conversion's parts: `1-of-40`, ..."""
        return part_names(len(self.cases), self.config.convert.cases_per_job)

    @property
    def runs(self) -> list[str]:
        """Names of the training runs: every experiment in every fold with every seed."""
        folds, seeds = self.folds.numbers, self.config.seeds
        return [run_name(name, seed, fold) for name in self.experiments for fold in folds for seed in seeds]

    @property
    def models(self) -> list[str]:
        """Names of what is scored: every run, and with `ensembles` the seeds and folds of each experiment together.

        Folds are combined only if there are test cases in no fold: on all others, one of the models was trained.
        """
        together = self.folds.together(self.config.seeds) if self.config.ensembles else []
        return [*self.runs, *(run_name(name, *pair) for name in self.experiments for pair in together)]

    @property
    def notes(self) -> list[str]:
        """Notes for the user before the study begins."""
        return [NOT_TOGETHER] if self.config.ensembles and self.folds.cannot_be_scored else []

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Combinations of modalities by the evaluation job that scores them."""
        task, settings = self.config.task, self.config.evaluation
        return grouped(task.ordered_subsets(settings.subsets or task.subset_names), settings.subsets_per_job)

    @property
    def task_option(self) -> str | None:
        """Value of --task for the commands before the training; None for the default task."""
        task = self.config.task
        if task == default_task():
            return None
        if task == shipped_tasks().get(task.name):
            return task.name
        return self._task_file or str(self.folder.task)

    def write_config(self) -> None:
        """Write the resolved configuration, with the task in full unless it comes with the program."""
        content = self.config.model_dump(mode="json")
        task = self.config.task
        if task == shipped_tasks().get(task.name):
            content["task"] = task.name
        elif self._task_file is None:
            write_text(self.folder.task, yaml.safe_dump(content["task"], sort_keys=False))
        write_text(self.folder.config, yaml.safe_dump(content, sort_keys=False))

    def cases_digest(self) -> str:
        """Return a digest of the cases to convert and how; if any case is added or removed, all parts are repeated."""
        settings = self.config.convert
        read_as = {"layout": settings.layout and layout_content(settings.layout), "labels": settings.labels}
        if self.config.task.digest != default_task().digest:
            read_as["task"] = self.config.task.digest
        if self.config.task.numbering != default_task().numbering:
            read_as["numbering"] = digest(self.config.task.numbering)
        content = {"cases": self.cases, "source": str(self.source), "allow": settings.allow}
        return digest(content | {name: value for name, value in read_as.items() if value is not None})

    def training_digest(self, run: str) -> str:
        """Return a digest of the settings that affect the weights of a run; the split is a separate input."""
        key = run_key(run)
        config = self.experiments[key.experiment]
        train = config.train.model_copy(update={"seed": key.seed})
        return science_digest(config.model_copy(update={"train": train}), split_hash="")

    def evaluation_digest(self, run: str) -> str:
        """Return a digest of what affects the scores of a run or an ensemble, besides the options of its evaluation."""
        rules = self.config.task.scoring_digest
        own = [] if rules == default_task().scoring_digest else [rules]
        return digest([self.weights_digest(run), PAINTED, *own])

    def weights_digest(self, model: str) -> str:
        """Return a digest of the settings that affect the weights of a run or an ensemble."""
        trained = [self.training_digest(run) for run in members(model)]
        return trained[0] if len(trained) == 1 else digest(trained)


def split_for(data: Path, what: str, task: Task, fold: int | None = None) -> Split:
    """Return the split of a converted data set, or of one of its folds, after checking its task against that of `what`.

    Raises
    ------
    InputError
        If there is none, it has no such fold, or the data or the split belong to another task; both are named.
    """
    folds = read_folds(data)
    if folds is None and fold is not None:
        raise InputError(
            f"{data / SPLIT_FILE} has no folds, but fold {fold} is requested; create folds with `ccsd split --folds`"
        )
    return checked_split(data, what, task, read_split(data) if folds is None or fold is None else folds.split(fold))


def checked_split(data: Path, what: str, task: Task, split: Split) -> Split:
    """Return a split of a converted data set after checking that both belong to the task of `what`.

    Raises
    ------
    InputError
        If the data or the split belong to another task; both are named.
    """
    reject_mixture([(what, task), (str(data), data_task(data))])
    if split.task not in ("", task.label):
        raise InputError(
            f"{data / SPLIT_FILE} belongs to the task {split.task}, but {what} to {task.label}; repeat the split with "
            f"`ccsd split {data}`"
        )
    return split


def prediction_file(folder: Path, subset: str, case: str) -> Path:
    """Return the path of an evaluation's label map in `folder` for a case and a combination."""
    return folder / PREDICTIONS / subset / f"{case}.nii.gz"


def layout_content(layout: str) -> str:
    """Return the contents of a layout file, or the name of a layout that this version knows."""
    path = Path(layout)
    return path.read_text(encoding="utf-8") if path.is_file() else layout


def part_names(cases: int, per_job: int) -> list[str]:
    """Return names of even parts with at most `per_job` cases, `1-of-40`, ...; there is at least one part."""
    count = max(1, math.ceil(cases / per_job))
    return [f"{index}-of-{count}" for index in range(1, count + 1)]


def experiment_config(raw: Mapping[str, Any], config: Config, name: str) -> Config:
    """Return the configuration of one experiment.

    Raises
    ------
    UsageError
        If the experiment changes something that the experiments of a study must share.
    """
    nested = deepcopy(dict(raw))
    for key, value in config.experiments[name].items():
        section = key.partition(".")[0]
        if section not in EXPERIMENT_SECTIONS or key == "train.seed":
            raise UsageError(
                f"configuration: experiments.{name}: {key} cannot differ between experiments; allowed are keys of "
                f"{', '.join(EXPERIMENT_SECTIONS)} except train.seed (set `seeds` instead)"
            )
        set_key(nested, key, value)
    return validate_config(nested, f"configuration with experiment {name}")


def grouped(subsets: Sequence[str], size: int | None) -> dict[str, list[str]]:
    """Split combinations evenly into jobs of at most `size`, or into one; with 1 a job is named by its combination."""
    if size == 1:
        return {name: [name] for name in subsets}
    count = 1 if size is None else math.ceil(len(subsets) / size)
    bounds = [round(index * len(subsets) / count) for index in range(count + 1)]
    return {f"part-{i}-of-{count}": list(subsets[bounds[i - 1] : bounds[i]]) for i in range(1, count + 1)}


def digest(content: Any) -> str:
    """Return 16 hexadecimal digits that change with any JSON-like content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]

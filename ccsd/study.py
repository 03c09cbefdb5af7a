"""The one owner of a study's names: its folders and files, its runs, parts and groups, and digests of its settings.

Imports neither torch nor pandas: the workflow and every command ask here.
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
from preprocess.files import write_text
from preprocess.modalities import SUBSET_ORDER

WEIGHTS, RECORD_FILE, EVENTS = "model.safetensors", "run.json", "metrics.jsonl"
"""Files of a training run."""
CHECKPOINTS, BEST, OVERLAYS, JOB = "checkpoints", "best.safetensors", "overlays", "job"
"""Its folders, of which the first has the best validated weights."""
SCORES_FILE, EVALUATION_FILE, PREDICTIONS = "metrics.tsv", "evaluation.json", "predictions"
"""Files of an evaluation, and the folder of its label maps."""


@dataclass(frozen=True)
class StudyFolder:
    """The folders and files of a study, whether they exist or not."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, defaults and overrides included."""
        return self.root / "config.yaml"

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

    def run_folders(self) -> list[Path]:
        """Folders of training runs that exist, sorted."""
        return sorted(path for path in self.root.glob("runs/*") if path.is_dir())

    def evaluations(self) -> dict[str, Path]:
        """Folders that hold scores, sorted, by `RUN/GROUP`."""
        found = sorted(path.parent for path in self.root.glob(f"evaluation/*/*/{SCORES_FILE}"))
        return {f"{path.parent.name}/{path.name}": path for path in found}

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
        """File that says a stage is done, for results that Snakemake must not delete before it runs a job again."""
        return self.root.joinpath("marks", stage, *names)


class Study:
    """One configuration: the names that it leads to, and what each result depends on."""

    def __init__(self, config: Config, experiments: Mapping[str, Config]) -> None:
        self.config = config
        self.experiments = dict(experiments)
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
        return cls(config, {name: experiment_config(raw, config, name) for name in config.experiments})

    @cached_property
    def cases(self) -> list[str]:
        """Names of the cases, from file names alone, in the order in which `ccsd convert` counts its parts."""
        if self.config.phantom is not None:
            from preprocess.phantom.cohort import case_names

            return sorted(case_names(self.config.phantom.cases))
        from preprocess.source.layouts import discover

        assert self.config.source is not None
        return [case.case for case in discover(self.config.source)]

    @property
    def source(self) -> Path:
        """Folder that conversion reads."""
        return self.config.source or self.folder.phantoms

    @property
    def parts(self) -> list[str]:
        """Names of the conversion's parts: `1-of-40`, ..."""
        count = max(1, math.ceil(len(self.cases) / self.config.convert.cases_per_job))
        return [f"{index}-of-{count}" for index in range(1, count + 1)]

    @property
    def runs(self) -> list[str]:
        """Names of the training runs: every experiment with every seed."""
        return [run_name(name, seed) for name in self.experiments for seed in self.config.seeds]

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Combinations of modalities by the evaluation job that scores them."""
        wanted = set(self.config.evaluation.subsets or SUBSET_ORDER)
        return grouped([name for name in SUBSET_ORDER if name in wanted], self.config.evaluation.subsets_per_job)

    def write_config(self) -> None:
        """Write the resolved configuration."""
        text = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
        write_text(self.folder.config, text)

    def cases_digest(self) -> str:
        """Return a digest of the cases to convert and how; with a case more or less all parts are converted again."""
        return digest({"cases": self.cases, "source": str(self.source), "allow": self.config.convert.allow})

    def training_digest(self, run: str) -> str:
        """Return a digest of the settings that decide the weights of a run; the split is an input of its own."""
        experiment, _, seed = run.rpartition("-s")
        config = self.experiments[experiment]
        train = config.train.model_copy(update={"seed": int(seed)})
        return science_digest(config.model_copy(update={"train": train}), split_hash="")


def prediction_file(folder: Path, subset: str, case: str) -> Path:
    """Return where an evaluation in `folder` keeps its label map of a case for one combination."""
    return folder / PREDICTIONS / subset / f"{case}.nii.gz"


def run_name(experiment: str, seed: int | str) -> str:
    """Return the name of the run that trains an experiment with a seed."""
    return f"{experiment}-s{seed}"


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


def grouped(subsets: Sequence[str], size: int) -> dict[str, list[str]]:
    """Split combinations into jobs of at most `size`, evenly; a job of one is named after its combination."""
    if size == 1:
        return {name: [name] for name in subsets}
    count = math.ceil(len(subsets) / size)
    bounds = [round(index * len(subsets) / count) for index in range(count + 1)]
    return {f"part-{i}-of-{count}": list(subsets[bounds[i - 1] : bounds[i]]) for i in range(1, count + 1)}


def digest(content: Any) -> str:
    """Return 16 hexadecimal digits that change with any JSON-like content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]

"""What the workflow must know before anything runs: names, parts and fingerprints; cases by their names alone.

The rules call the `ccsd` command; this module tells them for which runs, parts and combinations.
"""

import hashlib
import json
import math
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import yaml
from pydantic import BaseModel

from ccsd.config.load import set_key, validate
from ccsd.config.schema import Config, Evaluation
from ccsd.config.science import SECTIONS, science_digest
from ccsd.errors import UsageError
from ccsd.files import RECORD, WEIGHTS
from preprocess.errors import InputError
from preprocess.files import write_text
from preprocess.modalities import SUBSET_ORDER

OUTPUTS = ("*.*", "marks/*", "marks/convert/*", "data/*.*", "runs/*/*.*", "evaluation/*/*/*.*")
"""Below a study, where files lie whose times Snakemake compares."""

SKEW_S = 60.0
"""How far ahead the clock of a file server may be."""


class Study:
    """One configuration, seen from the workflow: which files it leads to and what each of them depends on."""

    def __init__(self, config: Config, experiments: Mapping[str, Config]) -> None:
        self.config = config
        self.experiments = dict(experiments)
        self.root = Path("results") / config.name

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Self:
        """Validate a configuration, its experiments included.

        Raises
        ------
        UsageError
            If anything in it cannot be used; every problem is listed.
        """
        config = validate(raw, "configuration")
        return cls(config, {name: experiment_config(raw, config, name) for name in config.experiments})

    @cached_property
    def cases(self) -> list[str]:
        """Names of the cases, from file names alone."""
        if self.config.phantom is not None:
            from preprocess.phantom.cohort import case_names

            return case_names(self.config.phantom.cases, self.config.phantom.seed)
        from preprocess.source.layouts import discover

        assert self.config.source is not None
        return [case.case for case in discover(self.config.source)]

    @property
    def source(self) -> Path:
        """Folder that conversion reads."""
        return self.root / "phantoms" if self.config.source is None else self.config.source

    @property
    def parts(self) -> list[str]:
        """Names of the conversion's parts: `1-of-40`, ..."""
        count = max(1, math.ceil(len(self.cases) / self.config.convert.cases_per_job))
        return [f"{index}-of-{count}" for index in range(1, count + 1)]

    @property
    def runs(self) -> list[str]:
        """Names of the training runs: every experiment with every seed."""
        return [f"{name}-s{seed}" for name in self.experiments for seed in self.config.seeds]

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Combinations of modalities by the evaluation job that scores them."""
        wanted = set(self.config.evaluation.subsets or SUBSET_ORDER)
        return grouped([name for name in SUBSET_ORDER if name in wanted], self.config.evaluation.subsets_per_job)

    @property
    def config_file(self) -> Path:
        """File with the resolved configuration."""
        return self.root / "config.yaml"

    def write_config(self) -> None:
        """Write down the whole configuration, defaults and overrides included."""
        write_text(self.config_file, yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False))

    @property
    def marks(self) -> Path:
        """Folder of the marks that say what was drawn and converted: those results are no outputs of rules."""
        return self.root / "marks"

    def drop_outdated_marks(self) -> str:
        """Forget that cases were drawn or converted that are gone, so that they are made again; say so."""
        from preprocess.dataset import CASES_FILE

        outdated = {}
        if unsettled := self._unsettled_parts():
            # The marks alone are not missed as long as the table made of them is there.
            outdated[self.root / "data"] = [*unsettled, self.root / "data" / CASES_FILE]
        if self.config.phantom is not None and not all((self.source / case).exists() for case in self.cases):
            outdated[self.source] = [self.marks / "phantoms"]
        found = [str(folder) for folder, paths in outdated.items() if sum(map(_drop, paths))]
        return f"cases are gone from {', '.join(found)}; they are made again if anything needs them" if found else ""

    def date_back(self) -> str:
        """Give outputs that seem to be of the future the present time; say so.

        Snakemake takes what is older than its input for a failure: after the clock was set back no job could end.
        """
        now = time.time()
        ahead = [path for pattern in OUTPUTS for path in self.root.glob(pattern) if path.stat().st_mtime > now + SKEW_S]
        dated = sum(_date(path, now) for path in ahead)
        return f"{dated} files below {self.root} were dated in the future; they are of this moment now" if dated else ""

    def _unsettled_parts(self) -> list[Path]:
        """Return the marks of the parts that have a case with neither a store nor a refusal."""
        from preprocess.convert import is_settled, select_part

        found = []
        for part in self.parts:
            number, _, total = part.partition("-of-")
            cases = select_part(self.cases, (int(number), int(total)))
            if not all(is_settled(self.root / "data", case) for case in cases):
                found.append(self.marks / "convert" / part)
        return found

    def cases_digest(self) -> str:
        """Return a fingerprint of the cases to convert and how; a case more or less converts again."""
        return digest({"cases": self.cases, "source": str(self.source), "allow": self.config.convert.allow})

    def training_digest(self, experiment: str, seed: str | int) -> str:
        """Return a fingerprint of the settings that decide the weights of a run; the split is an input of its own."""
        config = self.experiments[experiment]
        train = config.train.model_copy(update={"seed": int(seed)})
        return science_digest(config.model_copy(update={"train": train}), split_hash="")

    def note_attempts(self) -> None:
        """Give the trainings whose model was made with other settings a new number, which makes Snakemake train again.

        When a training fails, Snakemake puts the earlier model back, but remembers it as made with the new settings:
        without this the next call would find nothing to do.
        """
        for run in filter(self._is_outdated, self.runs):
            with suppress(InputError):  # where nothing can be written nothing can be trained either
                write_text(self._attempt(run), uuid4().hex)

    def training_reason(self, experiment: str, seed: str | int) -> str:
        """Return what a run depends on beside its data: when it changes, Snakemake trains."""
        attempt = self._attempt(f"{experiment}-s{seed}")
        return self.training_digest(experiment, seed) + (attempt.read_text() if attempt.is_file() else "")

    def _attempt(self, run: str) -> Path:
        return self.marks / "train" / run

    def _is_outdated(self, run: str) -> bool:
        experiment, _, seed = run.rpartition("-s")
        folder = self.root / "runs" / run
        try:
            made = Config.model_validate(json.loads((folder / RECORD).read_text(encoding="utf-8"))["config"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False  # not trained yet, or not by this version: `ccsd train` decides
        return (folder / WEIGHTS).is_file() and science_digest(made, "") != self.training_digest(experiment, seed)

    def phantom_options(self) -> str:
        """Return the options of `ccsd phantom`."""
        return _options(self.config.phantom) if self.config.phantom is not None else ""

    def allow_options(self) -> str:
        """Return the options of `ccsd convert`."""
        return shlex.join(item for check in self.config.convert.allow for item in ("--allow", check))

    def split_options(self) -> str:
        """Return the options of `ccsd split`: a published list, or a draw, and how many cases may be missing."""
        split, refused = self.config.split, f"--max-refused {self.config.convert.max_refused}"
        if split.list is not None:
            return f"{shlex.join(['--list', str(split.list)])} {refused}"
        return f"--seed {split.seed} --train {split.train} --val {split.val} {refused}"

    def left_out(self) -> list[str]:
        """Return a line for each case that conversion refused, and what to do about them; empty as a rule."""
        from preprocess.convert import read_refusals

        refused = read_refusals(self.root / "data")
        lines = [f"left out, refused by the conversion: {case}: {reason}" for case, reason in refused.items()]
        advice = "To use them, mend them or allow the check (convert.allow), and add --forcerun convert once."
        return [*lines, advice] if lines else []

    def evaluation_options(self, group: str) -> str:
        """Return the options of `ccsd evaluate` for one group: its combinations, and every setting that scores."""
        subsets = [item for name in self.groups[group] for item in ("-m", name)]
        fields = [name for name in Evaluation.model_fields if name not in {"subsets", "subsets_per_job"}]
        values = self.config.evaluation.model_dump(mode="json")
        settings = [item for name in fields for item in ("--set", f"evaluation.{name}={json.dumps(values[name])}")]
        return shlex.join([*subsets, *settings])


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
        if section not in SECTIONS or key == "train.seed":
            raise UsageError(
                f"configuration: experiments.{name}: {key} cannot differ between experiments; allowed are keys of "
                f"{', '.join(SECTIONS)} except train.seed (set `seeds` instead)"
            )
        set_key(nested, key, value)
    return validate(nested, f"configuration with experiment {name}")


def grouped(subsets: Sequence[str], size: int) -> dict[str, list[str]]:
    """Split combinations into jobs of at most `size`, evenly; a job of one is named after its combination."""
    if size == 1:
        return {name: [name] for name in subsets}
    count = math.ceil(len(subsets) / size)
    bounds = [round(index * len(subsets) / count) for index in range(count + 1)]
    return {f"part-{i}-of-{count}": list(subsets[bounds[i - 1] : bounds[i]]) for i in range(1, count + 1)}


def digest(content: Any) -> str:
    """Return a short fingerprint of JSON-like content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _drop(path: Path) -> bool:
    """Remove a file; tell whether it was there and could be removed."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _date(path: Path, when: float) -> bool:
    """Set a file's time; tell whether that could be done."""
    try:
        os.utime(path, (when, when))
    except OSError:
        return False
    return True


def _options(section: BaseModel) -> str:
    values = section.model_dump(mode="json")
    return shlex.join(item for name, value in values.items() for item in (f"--{name}", str(value)))

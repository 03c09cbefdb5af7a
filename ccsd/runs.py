"""The runs of a study: experiments, folds and seeds, and the names of runs and ensembles."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from ccsd.config.schema import Config
from ccsd.config.split import SplitSettings
from ccsd.errors import UsageError
from preprocess.folds import read_fold_list
from preprocess.splits import has_folds, read_list

_NAME = re.compile(r"(?P<experiment>.+?)(-f(?P<folds>\d+(\+\d+)*))?-s(?P<seeds>\d+(\+\d+)*)")


NOT_TOGETHER = (
    "the models of the folds are not scored together, because some of them were trained on each case; give split.list "
    "with test cases that are in no fold. They can segment new cases together (predict.models)"
)


class RunKey(NamedTuple):
    """Experiment, seed and fold of a run."""

    experiment: str
    fold: int | None
    """None if the split has no folds."""
    seed: int


@dataclass(frozen=True)
class FoldPlan:
    """The folds that a study trains, and whether there are test cases outside them.

    Attributes
    ----------
    numbers
        The folds that are trained; None stands for a split without folds.
    has_test
        Whether any case is in no fold: models of several folds can only be scored together on such cases.
    """

    numbers: tuple[int | None, ...] = (None,)
    has_test: bool = False

    @property
    def cannot_be_scored(self) -> bool:
        """Whether there are models of several folds, but no case that all of them were trained without."""
        return len(self.numbers) > 1 and not self.has_test

    def together(self, seeds: Sequence[int]) -> list[tuple[str, int | str | None]]:
        """Return seeds and folds, as for `run_name`, of the models of an experiment that are scored as one."""
        named = joined(seeds)
        found: list[tuple[str, int | str | None]] = [(named, fold) for fold in self.numbers if len(set(seeds)) > 1]
        if len(self.numbers) > 1 and self.has_test:
            found.append((named, joined(self.numbers)))
        return found

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the folds of a configuration, from its list of cases if it has one.

        Raises
        ------
        UsageError, InputError
            If it names folds that do not exist, or the list cannot be used.
        """
        if config.split.fold is not None:
            raise UsageError(
                f"configuration: split.fold is for a single `ccsd train`; in a study, set folds: [{config.split.fold}]"
            )
        there, has_test = _folds_there(config.split)
        if not there and config.folds:
            raise UsageError(
                "configuration: folds: the split has none; set split.folds, such as 5, or give split.list a column fold"
            )
        if missing := sorted(set(config.folds) - set(there)):
            raise UsageError(f"configuration: folds: no fold {missing[0]}; there are {', '.join(map(str, there))}")
        return cls(tuple(dict.fromkeys(config.folds)) or there or (None,), has_test)


def _folds_there(split: SplitSettings) -> tuple[tuple[int, ...], bool]:
    listed = split.list if split.list is not None and split.list.is_file() else None  # Snakemake reports a missing one
    if listed is not None and has_folds(listed):
        folds = read_fold_list(listed)
        if split.folds not in (None, len(folds.numbers)):
            raise UsageError(
                f"configuration: split.folds: {split.folds}, but {listed} has {len(folds.numbers)} folds; leave "
                "split.folds out, or give a list without the column fold"
            )
        return folds.numbers, bool(folds.test)
    if split.folds is None:
        return (), False
    return tuple(range(split.folds)), listed is not None and "test" in read_list(listed).values()


def run_name(experiment: str, seed: int | str, fold: int | str | None = None) -> str:
    """Return the name of the run of an experiment with a seed, such as `ccsd-s0`, or in a fold, `ccsd-f2-s0`."""
    return f"{experiment}{'' if fold is None else f'-f{fold}'}-s{seed}"


def reject_adopted_names(experiments: Iterable[str], adopted: Iterable[Path]) -> None:
    """Reject experiments with the name of an adopted method, as the report could not distinguish them.

    Raises
    ------
    UsageError
        If there is one; `adopted` are the tables of `ccsd adopt`.
    """
    folders = {path.parent.parent.name: path.parent.parent for path in adopted}
    if taken := [name for name in experiments if name in folders]:
        raise UsageError(
            f"configuration: experiments: {taken[0]} is the name of an adopted method; rename the experiment, or "
            f"remove {folders[taken[0]]}"
        )


def members(model: str) -> list[str]:
    """Return the names of the runs in a model: for `ccsd-f0+1-s0` those of both folds, for a run its own name."""
    found = _NAME.fullmatch(model)
    if found is None:
        return [model]
    folds = found["folds"].split("+") if found["folds"] else [None]
    return [run_name(found["experiment"], seed, fold) for fold in folds for seed in found["seeds"].split("+")]


def run_key(run: str) -> RunKey:
    """Return experiment, seed and fold of a run by its name."""
    found = _NAME.fullmatch(run)
    assert found is not None, run
    return RunKey(found["experiment"], int(found["folds"]) if found["folds"] else None, int(found["seeds"]))


def joined(numbers: Iterable[int | None]) -> str:
    """Return folds or seeds as written in a name: `0+1`."""
    return "+".join(str(number) for number in dict.fromkeys(numbers))


def ensemble_name(runs: Sequence[RunKey]) -> str:
    """Return a joint name for several runs: `ccsd-s0+1`, `ccsd-f0+1+2-s0`, or otherwise the names of all."""
    own: dict[str, list[RunKey]] = {}
    for run in runs:
        own.setdefault(run.experiment, []).append(run)
    return "+".join(_together(some) for some in own.values())


def _together(runs: Sequence[RunKey]) -> str:
    experiment, fold, _ = runs[0]
    folds, seeds = (list(dict.fromkeys(run[place] for run in runs)) for place in (1, 2))
    if len(folds) == 1:
        return run_name(experiment, "+".join(str(run.seed) for run in runs), fold)
    if len(runs) == len(set(runs)) == len(folds) * len(seeds):
        return run_name(experiment, joined(run.seed for run in runs), joined(run.fold for run in runs))
    return "+".join(run_name(run.experiment, run.seed, run.fold) for run in runs)

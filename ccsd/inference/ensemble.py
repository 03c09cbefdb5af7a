"""Several trained models that segment as one, by the mean of their probabilities: which ones fit together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccsd.errors import UsageError
from ccsd.inference.case import in_mm, training_spacing
from ccsd.metrics.regions import Spacing
from ccsd.packed.find import saved_models
from ccsd.records import ModelIdentity, RunRecord
from ccsd.runs import RunKey, ensemble_name, run_name
from ccsd.saved import SavedModel, joint_hash
from ccsd.study import RECORD_FILE
from preprocess.errors import InputError
from preprocess.task import Task, refuse_mixture

if TYPE_CHECKING:
    import torch

    from ccsd.config import Config, Evaluation
    from ccsd.model import TrainedModel

_SAME_SPACING = 1e-3
"""Relative difference up to which two voxel spacings are one."""
_WAY_ON = "probabilities of such models cannot be averaged; name models that fit together, or use one --model alone"


@dataclass(frozen=True)
class Member:
    """One of the models, as its run.json describes it."""

    saved: SavedModel

    @property
    def where(self) -> str:
        """What messages call it."""
        return self.saved.where

    @property
    def record(self) -> RunRecord:
        """What its training was."""
        return self.saved.record

    @property
    def config(self) -> "Config":
        """The configuration of its training."""
        return self.saved.config

    @property
    def identity(self) -> ModelIdentity:
        """What tells it from others."""
        folder = self.saved.folder
        experiment = self.record.experiment or (folder.resolve().name if folder else self.saved.label)
        fold = {} if self.fold is None else {"fold": self.fold}
        return ModelIdentity(
            experiment=experiment, seed=self.config.train.seed, **fold, model_hash=self.record.model_hash
        )

    @property
    def fold(self) -> int | None:
        """The fold that it was trained in, if any."""
        return self.config.split.fold


@dataclass(frozen=True)
class Ensemble:
    """Models in the order in which they were named; usually one."""

    members: tuple[Member, ...]
    models: tuple["TrainedModel", ...]
    """Those of the members. Several are on the CPU, as pages of their files, except the one that computes."""

    @property
    def task(self) -> Task:
        """What all of them segment from what; where rules of scoring differ, those of the first."""
        return self.members[0].config.task

    @property
    def spacing(self) -> Spacing:
        """Millimetres between voxels along D, H, W at which all of them were trained."""
        return training_spacing(self.members[0].record)

    @property
    def settings(self) -> "Evaluation":
        """Settings of the evaluation: those of the first."""
        return self.members[0].config.evaluation

    @property
    def identities(self) -> tuple[ModelIdentity, ...]:
        """What tells them from others, in order."""
        return tuple(member.identity for member in self.members)

    @property
    def name(self) -> str:
        """The experiment of one model; of several their experiments with seeds, and folds if they are of several.

        So the ensembles of seeds in all folds have one name, `ccsd-s0+1`, as all folds of an experiment have.
        """
        if len(self.members) == 1:
            return str(self.members[0].identity.experiment)
        own = [_key(member) for member in self.members]
        several = len({key.fold for key in own}) > 1
        return ensemble_name([key if several else key._replace(fold=None) for key in own])

    @property
    def model_hash(self) -> str:
        """SHA-256 of the weights of one model; of several, that of their hashes in order."""
        return hash_of(self.members)


def hash_of(members: Sequence[Member]) -> str:
    """Return the SHA-256 of the weights of one model; of several, that of their hashes in order."""
    return joint_hash([member.record.model_hash for member in members])


def evaluated_as(members: Sequence[Member]) -> str:
    """Return what a study calls the models: `ccsd-s0`, together `ccsd-s0+1`."""
    keys = [_key(member) for member in members]
    return run_name(keys[0].experiment, keys[0].seed, keys[0].fold) if len(keys) == 1 else ensemble_name(keys)


def _key(member: Member) -> RunKey:
    return RunKey(str(member.identity.experiment), member.fold, member.config.train.seed)


def read_members(models: Path | str | Sequence[Path | str]) -> tuple[Member, ...]:
    """Read which models are to be used, without their weights.

    Parameters
    ----------
    models
        What `--model` takes, or several of it: folder of a finished training run, packed file, name or address.

    Raises
    ------
    UsageError
        If a folder is not a finished run or does not say its voxel spacing, or two models do not fit together: other
        sequences, regions, task or voxel spacing, or the same weights. Both are named.
    """
    named = (models,) if isinstance(models, Path | str) else tuple(models)
    members = [Member(saved) for model in named for saved in saved_models(model)]
    for member in members:
        training_spacing(member.record, f"{member.where}/{RECORD_FILE}")
        assert member.config
    for number, member in enumerate(members):
        for earlier in members[:number]:
            _refuse_twin(member, earlier)
        _refuse_unlike(member, members[0])
    return tuple(members)


def load_ensemble(members: Sequence[Member], device: "torch.device | str" = "cpu") -> Ensemble:
    """Read the weights of models that fit together; one goes to the device, several stay on the CPU.

    Raises
    ------
    UsageError
        If the weights of a model cannot be used.
    """
    from ccsd.model import load_model

    where = device if len(members) == 1 else "cpu"
    return Ensemble(tuple(members), tuple(load_model(member.saved, where) for member in members))


def _refuse_twin(member: Member, earlier: Member) -> None:
    if member.record.model_hash == earlier.record.model_hash != "":
        what = "twice" if member.where == earlier.where else f"and {earlier.where}: the same weights"
        raise UsageError(f"--model {member.where} {what}; name each model once")


def _refuse_unlike(member: Member, first: Member) -> None:
    task, expected = member.config.task, first.config.task
    for what, own, other in (
        ("sequences", task.modalities, expected.modalities),
        ("regions", tuple(task.regions), tuple(expected.regions)),
    ):
        if own != other:
            raise UsageError(
                f"{member.where} has the {what} {', '.join(own)}, but {first.where} has {', '.join(other)}; {_WAY_ON}"
            )
    try:
        refuse_mixture([(first.where, expected), (member.where, task)])
    except InputError as error:
        raise UsageError(f"{error}. {_WAY_ON[0].upper()}{_WAY_ON[1:]}") from None
    spacing, wanted = training_spacing(member.record), training_spacing(first.record)
    if not all(math.isclose(a, b, rel_tol=_SAME_SPACING) for a, b in zip(spacing, wanted, strict=True)):
        raise UsageError(
            f"{member.where} was trained at voxels of {in_mm(spacing)}, but {first.where} at {in_mm(wanted)}; {_WAY_ON}"
        )

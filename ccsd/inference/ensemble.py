"""Use several trained models as one, by the mean of their probabilities, and check that they fit together."""

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
from preprocess.task import Task, reject_mixture

if TYPE_CHECKING:
    import torch

    from ccsd.config import Config, Evaluation
    from ccsd.model import TrainedModel

_SAME_SPACING = 1e-3
"""Relative difference up to which two voxel spacings count as the same."""
_HINT = "probabilities of such models cannot be averaged; choose models that fit together, or use only one --model"


@dataclass(frozen=True)
class Member:
    """One of the models, as its run.json describes it."""

    saved: SavedModel

    @property
    def where(self) -> str:
        """Its name in messages."""
        return self.saved.where

    @property
    def record(self) -> RunRecord:
        """The record of its training."""
        return self.saved.record

    @property
    def config(self) -> "Config":
        """The configuration of its training."""
        return self.saved.config

    @property
    def identity(self) -> ModelIdentity:
        """What distinguishes it from other models."""
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
    """The models of the members. Several are on the CPU, mapped from their files, except the one that computes."""

    @property
    def task(self) -> Task:
        """The task of all of them; if scoring rules differ, those of the first apply."""
        return self.members[0].config.task

    @property
    def spacing(self) -> Spacing:
        """Millimetres between voxels along D, H, W at which all of them were trained."""
        return training_spacing(self.members[0].record)

    @property
    def settings(self) -> "Evaluation":
        """Evaluation settings: those of the first model."""
        return self.members[0].config.evaluation

    @property
    def identities(self) -> tuple[ModelIdentity, ...]:
        """What distinguishes each from other models, in order."""
        return tuple(member.identity for member in self.members)

    @property
    def name(self) -> str:
        """The experiment of one model; for several, their experiments with seeds, and with folds if these differ.

        So ensembles of the same seeds have the same name in all folds, `ccsd-s0+1`, as experiments do.
        """
        if len(self.members) == 1:
            return str(self.members[0].identity.experiment)
        own = [_key(member) for member in self.members]
        several = len({key.fold for key in own}) > 1
        return ensemble_name([key if several else key._replace(fold=None) for key in own])

    @property
    def model_hash(self) -> str:
        """SHA-256 of the weights of one model; for several, that of their hashes in order."""
        return hash_of(self.members)


def hash_of(members: Sequence[Member]) -> str:
    """Return the SHA-256 of the weights of one model; for several, that of their hashes in order."""
    return joint_hash([member.record.model_hash for member in members])


def evaluated_as(members: Sequence[Member]) -> str:
    """Return the name of the models in a study: `ccsd-s0`, or `ccsd-s0+1` for several."""
    keys = [_key(member) for member in members]
    return run_name(keys[0].experiment, keys[0].seed, keys[0].fold) if len(keys) == 1 else ensemble_name(keys)


def _key(member: Member) -> RunKey:
    return RunKey(str(member.identity.experiment), member.fold, member.config.train.seed)


def read_members(models: Path | str | Sequence[Path | str]) -> tuple[Member, ...]:
    """Read the records of models, without their weights.

    Parameters
    ----------
    models
        What `--model` takes, once or several times: folder of a finished training run, packed file, name or URL.

    Raises
    ------
    UsageError
        If a folder is not a finished run or lacks its voxel spacing, or two models do not fit together: different
        sequences, regions, task or voxel spacing, or the same weights. The message names both.
    """
    named = (models,) if isinstance(models, Path | str) else tuple(models)
    members = [Member(saved) for model in named for saved in saved_models(model)]
    for member in members:
        training_spacing(member.record, f"{member.where}/{RECORD_FILE}")
        assert member.config
    for number, member in enumerate(members):
        for earlier in members[:number]:
            _reject_same_weights(member, earlier)
        _reject_mismatch(member, members[0])
    return tuple(members)


def load_ensemble(members: Sequence[Member], device: "torch.device | str" = "cpu") -> Ensemble:
    """Load the weights of models that fit together; a single model goes to the device, several stay on the CPU.

    Raises
    ------
    UsageError
        If the weights of a model cannot be used.
    """
    from ccsd.model import load_model

    where = device if len(members) == 1 else "cpu"
    return Ensemble(tuple(members), tuple(load_model(member.saved, where) for member in members))


def _reject_same_weights(member: Member, earlier: Member) -> None:
    if member.record.model_hash == earlier.record.model_hash != "":
        what = "is given twice" if member.where == earlier.where else f"and {earlier.where} have the same weights"
        raise UsageError(f"--model {member.where} {what}; give each model once")


def _reject_mismatch(member: Member, first: Member) -> None:
    task, expected = member.config.task, first.config.task
    for what, own, other in (
        ("sequences", task.modalities, expected.modalities),
        ("regions", tuple(task.regions), tuple(expected.regions)),
    ):
        if own != other:
            raise UsageError(
                f"{member.where} has the {what} {', '.join(own)}, but {first.where} has {', '.join(other)}; {_HINT}"
            )
    try:
        reject_mixture([(first.where, expected), (member.where, task)])
    except InputError as error:
        raise UsageError(f"{error}. {_HINT[0].upper()}{_HINT[1:]}") from None
    spacing, wanted = training_spacing(member.record), training_spacing(first.record)
    if not all(math.isclose(a, b, rel_tol=_SAME_SPACING) for a, b in zip(spacing, wanted, strict=True)):
        raise UsageError(
            f"{member.where} was trained at voxels of {in_mm(spacing)}, but {first.where} at {in_mm(wanted)}; {_HINT}"
        )

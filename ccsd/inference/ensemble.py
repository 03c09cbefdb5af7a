"""Several trained models that segment as one, by the mean of their probabilities: which ones fit together."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccsd.errors import UsageError
from ccsd.inference.case import in_mm, training_spacing
from ccsd.metrics.regions import Spacing
from ccsd.records import ModelIdentity, RunRecord
from ccsd.runs import RunKey, ensemble_name
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

    folder: Path
    record: RunRecord
    config: "Config"

    @property
    def identity(self) -> ModelIdentity:
        """What tells it from others."""
        experiment = self.record.experiment or self.folder.resolve().name
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
        own = [(str(member.identity.experiment), member.fold, member.config.train.seed) for member in self.members]
        several = len({fold for _, fold, _ in own}) > 1
        return ensemble_name([RunKey(name, fold if several else None, seed) for name, fold, seed in own])

    @property
    def model_hash(self) -> str:
        """SHA-256 of the weights of one model; of several, that of their hashes in order."""
        hashes = [member.record.model_hash for member in self.members]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def read_members(models: Path | Sequence[Path]) -> tuple[Member, ...]:
    """Read which models are to be used, without their weights.

    Parameters
    ----------
    models
        Folder of a finished training run, or several.

    Raises
    ------
    UsageError
        If a folder is not a finished run or does not say its voxel spacing, or two models do not fit together: other
        sequences, regions, task or voxel spacing, or the same weights. Both are named.
    """
    folders = (models,) if isinstance(models, Path) else tuple(models)
    members = []
    for folder in folders:
        record = RunRecord.read(folder)
        training_spacing(record, folder / RECORD_FILE)
        members.append(Member(folder, record, record.settings(folder)))
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
    return Ensemble(tuple(members), tuple(load_model(member.folder, where) for member in members))


def _refuse_twin(member: Member, earlier: Member) -> None:
    if member.record.model_hash == earlier.record.model_hash != "":
        what = "twice" if member.folder == earlier.folder else f"and {earlier.folder}: the same weights"
        raise UsageError(f"--model {member.folder} {what}; name each model once")


def _refuse_unlike(member: Member, first: Member) -> None:
    task, expected = member.config.task, first.config.task
    for what, own, other in (
        ("sequences", task.modalities, expected.modalities),
        ("regions", tuple(task.regions), tuple(expected.regions)),
    ):
        if own != other:
            raise UsageError(
                f"{member.folder} has the {what} {', '.join(own)}, but {first.folder} has {', '.join(other)}; {_WAY_ON}"
            )
    try:
        refuse_mixture([(str(first.folder), expected), (str(member.folder), task)])
    except InputError as error:
        raise UsageError(f"{error}. {_WAY_ON[0].upper()}{_WAY_ON[1:]}") from None
    spacing, wanted = training_spacing(member.record), training_spacing(first.record)
    if not all(math.isclose(a, b, rel_tol=_SAME_SPACING) for a, b in zip(spacing, wanted, strict=True)):
        raise UsageError(
            f"{member.folder} was trained at voxels of {in_mm(spacing)}, but {first.folder} at {in_mm(wanted)}; "
            f"{_WAY_ON}"
        )

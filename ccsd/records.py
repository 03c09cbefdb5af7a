"""Records stored with results: run.json, calibration.json and metrics.jsonl of trainings, evaluation.json of scores.

Keys that this version does not know are ignored. Keys that were added later may be missing in older files.
"""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ccsd.config.load import validate_config
from ccsd.config.schema import Config
from ccsd.errors import UsageError
from ccsd.plugins.find import PluginRecord
from ccsd.study import CALIBRATION_FILE, EVALUATION_FILE, EVENTS, RECORD_FILE
from preprocess.files import write_text
from preprocess.task import Task


def short_hash(value: str | None) -> str:
    """Return a hash as tables, messages and names of files show it: twelve digits."""
    return str(value)[:12]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    FILE: ClassVar[str]
    KIND: ClassVar[str]
    COMMAND: ClassVar[str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the record in a folder of results.

        Raises
        ------
        UsageError
            If it is missing, or is not such a record.
        """
        return cls.read_file(folder / cls.FILE)

    @classmethod
    def read_file(cls, path: Path) -> Self:
        """Read the record in a file.

        Raises
        ------
        UsageError
            If it is missing, is not such a record, or cannot be read.
        """
        try:
            return cls.parse(path.read_bytes(), path)
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"{path.parent}: not a finished {cls.KIND} ({path.name} is missing); "
                f"`{cls.COMMAND}` writes it at the end"
            ) from None
        except OSError as error:
            raise cls._unreadable(path, str(error.strerror)) from None

    @classmethod
    def parse(cls, content: bytes, origin: Path | str) -> Self:
        """Return the record in the content of a file; `origin` names the file in error messages.

        Raises
        ------
        UsageError
            If it is not such a record.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(key) for key in first["loc"])
            raise cls._unreadable(origin, ": ".join(filter(None, [where, first["msg"]]))) from None

    @classmethod
    def _unreadable(cls, origin: Path | str, reason: str) -> UsageError:
        return UsageError(
            f"{origin}: cannot be read as the record of the {cls.KIND}: {reason}; copy it again, or run "
            f"`{cls.COMMAND}` again"
        )

    def write(self, folder: Path) -> None:
        """Write the record, whole or not at all."""
        write_text(folder / self.FILE, self.model_dump_json(indent=2, exclude_unset=True) + "\n")


class Start(BaseModel):
    """What a training was fine-tuned from, and which weights it used."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: str
    """Its folder, as it was given."""
    model_hash: str
    """SHA-256 of the weights' file."""
    task: str = ""
    split_hash: str = ""
    data_hash: str = ""
    taken: tuple[str, ...] = ()
    """Parts whose weights were used, in words."""
    new: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    start: "Start | None" = None
    """What the start was itself fine-tuned from."""

    def knows(self, data_hash: str, split_hash: str) -> bool:
        """Return whether this or an earlier start was trained on another split of the same data."""
        mine = self.data_hash == data_hash != "" and self.split_hash != split_hash
        return mine or (self.start is not None and self.start.knows(data_hash, split_hash))

    def __str__(self) -> str:
        earlier = f", which was fine-tuned from {self.start}" if self.start else ""
        return f"{self.run} (model {short_hash(self.model_hash)}, task {self.task}){earlier}"


class RunRecord(_Record):
    """The record of a finished training: `run.json`, written after the weights."""

    FILE, KIND, COMMAND = RECORD_FILE, "run", "ccsd train"

    config: dict[str, Any]
    """The resolved configuration."""
    experiment: str | None = None
    task: str = ""
    """Label of the task; the configuration contains the whole task."""
    versions: dict[str, str] = {}
    git: str | None = None
    """Revision of the source, with `+` when it was changed."""
    science: str = ""
    """Digest of what determines the weights: settings, split and the contents of its cases."""
    split_hash: str = ""
    content_hash: str = ""
    """Hash of what the training and validation cases were made from; empty in runs of earlier versions."""
    data_hash: str = ""
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Voxel spacing of the training along D, H, W."""
    processes: int | None = None
    device: str | None = None
    gpu: str | None = None
    """Name of the GPU."""
    steps: int | None = None
    wall_s: float | None = None
    gpu_hours: float | None = None
    selected_step: int | None = None
    """Step whose weights became the model."""
    model_hash: str = ""
    """SHA-256 of the weights' file."""
    start: Start | None = None
    """What it was fine-tuned from."""
    plugins: tuple[PluginRecord, ...] = ()
    """The network or the objective, if it comes from a plug-in."""

    @property
    def origin(self) -> str:
        """Where the weights come from, in words."""
        return f"fine-tuned from {self.start}" if self.start else "trained from scratch"

    @property
    def may_know_test_cases(self) -> bool:
        """Whether a model that it was fine-tuned from was trained with another split of the same data."""
        return self.start is not None and self.start.knows(self.data_hash, self.split_hash)

    def settings(self, folder: Path | str) -> Config:
        """Return the configuration of a run, without keys that this version does not know.

        `folder` is the folder of the run, for messages.

        Raises
        ------
        UsageError
            If a setting cannot be used; every problem is listed.
        """
        return validate_config(self.config, f"{folder}/{self.FILE}", unknown="ignore")


class ModelIdentity(BaseModel):
    """What distinguishes one trained model from others."""

    model_config = ConfigDict(frozen=True, extra="allow")

    experiment: str | None = None
    seed: int | None = None
    fold: int | None = None
    model_hash: str = ""


class Identity(BaseModel):
    """Everything that determines the scores of an evaluation; equal identities give equal scores.

    There are more keys than these: for a model, its window, the spacing of its training and a hash of the cases; for
    files, the folders and their label conventions.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    experiment: str | None = None
    seed: int | None = None
    task: str = ""
    """Name of the task with the digest of what determines its scores."""
    model_hash: str | None = None
    """SHA-256 of the weights; for several models, that of their hashes, one per line."""
    models: tuple[ModelIdentity, ...] = ()
    """The models of an ensemble, in order."""
    split_hash: str | None = None
    """For a fold, that of all folds together."""
    fold: int | None = None
    """The fold whose cases are scored."""
    cases: tuple[str, ...] = ()
    subsets: tuple[str, ...] = ()
    settings: dict[str, Any] = {}


class EvaluationRecord(_Record):
    """Where scores come from: `evaluation.json`, written after them."""

    FILE, KIND, COMMAND = EVALUATION_FILE, "evaluation", "ccsd evaluate"

    format: int = 2
    identity: Identity
    task: Task
    """The whole task, with its scoring rules, so that its file is not needed."""
    policy: str = ""
    policy_text: str = ""
    versions: dict[str, str] = {}
    """Versions of the software that computed the scores."""
    finished: str = ""
    """Time in UTC."""
    cases: int | None = None
    cases_by_subset: dict[str, int] = {}
    device: str | None = None


@dataclass(frozen=True)
class ExpectedDice:
    """The Dice to expect of the segmentation of one region, by a calibration."""

    value: float
    low: float | None
    """Lower end of the interval; None if the calibration had too few cases."""
    high: float | None
    level: float
    """Share of cases like those of the calibration whose Dice lies in the interval."""

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" ({self.low:.2f} to {self.high:.2f})"
        return f"{self.value:.2f}{interval}"


_Share = Annotated[float, Field(ge=0, le=1)]


class Curve(BaseModel):
    """Dice by confidence, for one region and number of sequences; linear between its points."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    region: str
    sequences: PositiveInt
    patients: PositiveInt
    """How many patients it was fitted to."""
    seen: tuple[_Share, _Share]
    """The lowest and the highest confidence of those cases."""
    confidence: tuple[_Share, ...] = Field(min_length=2)
    """Increasing."""
    expected: tuple[_Share, ...]
    low: tuple[_Share, ...] | None = None
    high: tuple[_Share, ...] | None = None

    @model_validator(mode="after")
    def _is_a_curve(self) -> Self:
        low, high = self.low or self.expected, self.high or self.expected
        if (self.low is None) != (self.high is None) or not len(low) == len(high) == len(self.expected):
            raise ValueError("expected, low and high must have the same length")
        if len(self.expected) != len(self.confidence) or any(a >= b for a, b in itertools.pairwise(self.confidence)):
            raise ValueError("confidence must increase, and have the same length as expected")
        if any(not a <= b <= c for a, b, c in zip(low, self.expected, high, strict=True)):
            raise ValueError("expected must lie between low and high")
        return self


class Calibration(_Record):
    """How confidence relates to Dice on cases that the models were not trained on: `calibration.json`."""

    FILE, KIND, COMMAND = CALIBRATION_FILE, "calibration", "ccsd calibrate"

    format: Literal[1]
    model_hash: str
    """As in `Identity`."""
    split_hash: str = ""
    data_hash: str = ""
    task: str
    level: float = Field(gt=0, lt=1)
    cases: NonNegativeInt
    """How many cases had anything painted."""
    patients: NonNegativeInt
    resampled: bool = False
    """Whether one of them was resampled to the voxel spacing of the training."""
    settings: dict[str, Any]
    """Settings of the evaluation that affect the segmentations."""
    versions: dict[str, str] = {}
    curves: tuple[Curve, ...]

    def curve(self, region: str, sequences: int) -> Curve | None:
        """Return the curve of a region and number of sequences, if the calibration saw such segmentations."""
        return next((c for c in self.curves if (c.region, c.sequences) == (region, sequences)), None)

    def expected(self, region: str, sequences: int, confidence: float) -> ExpectedDice | None:
        """Return the Dice to expect; None for what the calibration did not see, or where nothing is painted."""
        import numpy as np  # takes longer to import than everything else here

        curve = self.curve(region, sequences)
        if curve is None or math.isnan(confidence):
            return None
        shown = (curve.expected, curve.low, curve.high)
        value, low, high = (None if v is None else float(np.interp(confidence, curve.confidence, v)) for v in shown)
        assert value is not None
        return ExpectedDice(value, low, high, self.level)


def read_events(run: Path) -> list[dict[str, Any]]:
    """Return the events in a run's metrics.jsonl, in order; none if there is no such file.

    A line that was cut short by a crash is ignored.
    """
    path = run / EVENTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [event for line in lines if (event := _event(line)) is not None]


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("step"), int) else None

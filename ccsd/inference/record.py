"""CASE.json: which models made a segmentation, how and from what, and what it shows. Keys name the units of numbers."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from ccsd.inference.confidence import MEANING
from ccsd.inference.measure import MeasuredLesion
from ccsd.records import ModelIdentity

FORMAT: Final = 2
"""Version of the record, also used to distinguish results: before 2, the background could be painted."""


Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Size = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelRecord(ModelIdentity):
    """What distinguishes a model from others."""

    model_hash: Digest


class OptionsRecord(_Part):
    """The options that determine a segmentation."""

    modalities: str | None = Field(description="the combination that was requested; null: every available sequence")
    labels: str = Field(description="label convention that was requested; auto: that of the input")
    probabilities: bool = Field(description="whether the probabilities were written as well")
    flips: bool = Field(description="whether 8 mirror images were averaged")
    overlap: float = Field(description="share of a window that overlaps its neighbour")
    cleanup: bool = Field(description="whether the clean-up of the task was applied")
    layout: str | None = Field(description="layout of the input that was requested; null: it was detected")
    allow: tuple[str, ...] = Field(description="checks that were not allowed to reject the case")


class FilesRecord(_Part):
    """Which file was which sequence, according to names only."""

    images: dict[str, str] = Field(description="file by sequence, relative to their common folder")
    channels: tuple[str, ...] = Field(description="sequences in the order of a file that holds several; usually empty")
    numbering: str | None = Field(description="label convention that the names imply")


class InputRecord(_Part):
    """An image that was used."""

    file: str | None = Field(description="name of the file; null for an array in memory")
    sha256: Digest | None = Field(description="SHA-256 of the file's bytes; null for an image in memory")
    voxels_sha256: Digest = Field(
        description="SHA-256 of the content, independent of data type, margin and orientation"
    )


class ExpectedDiceRecord(_Part):
    """The Dice to expect of a region, by the calibration of the models."""

    value: Share = Field(description="the Dice to expect")
    low: Share | None = Field(description="lower end of the interval; null if the calibration had too few cases")
    high: Share | None = Field(description="upper end of the interval")
    level: Share = Field(description="share of cases like those of the calibration whose Dice lies in the interval")


class PredictionRecord(_Part):
    """What `ccsd predict` writes beside a segmentation."""

    format: Literal[2] = Field(description="version of this format")
    ccsd_version: str = Field(description="version of the program")
    case: str = Field(description="name of the case: that of the segmentation's file without its ending")
    written: tuple[str, ...] = Field(description="files of this prediction next to the record, the segmentation first")
    models: tuple[ModelRecord, ...] = Field(
        min_length=1, description="the models that made it: experiment, seed, and SHA-256 of the weights"
    )
    options: OptionsRecord
    files: FilesRecord
    inputs: dict[str, InputRecord] = Field(description="the images that were used, by sequence")
    task: str = Field(description="name of the task, and the digest of its sequences, classes and regions")
    used: tuple[str, ...] = Field(min_length=1, description="sequences that were used")
    missing: tuple[str, ...] = Field(description="sequences of the task that the case lacks")
    warnings: tuple[str, ...] = Field(description="what a person should check before trusting the segmentation")
    numbering: str = Field(description="label convention of the segmentation")
    labels: dict[int, str] = Field(description="what each number in the segmentation means; 0 is background")
    spacing_mm: tuple[float, float, float] = Field(description="voxel sizes along the three axes of the file")
    outside_brain_share: float = Field(
        ge=0,
        le=1,
        description="share, 0 to 1, of the voxels that the models would have segmented but that lie outside the brain",
    )
    confidence: dict[str, Share | None] = Field(
        default={}, description=f"by region, {MEANING}; null where nothing is segmented"
    )
    expected_dice: dict[str, ExpectedDiceRecord] = Field(
        default={}, description="by region, the Dice to expect; only for models calibrated with `ccsd calibrate`"
    )
    volumes_mm3: dict[str, Size] = Field(description="volume by region")
    volumes_ml: dict[str, Size] = Field(description="the same in millilitres")
    lesions: dict[str, tuple[MeasuredLesion, ...]] = Field(description="lesions by region, the largest first")

"""What a store records about its case: the attributes of its Zarr group."""

import re
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat

from preprocess.source.geometry import Geometry
from preprocess.task import AnyTask, LabelConvention

LAYOUT_VERSION: Final = 2
_SCAN = re.compile(r"^(BraTS-[A-Za-z]+-\d+)-\d{3}$")


class Scale(BaseModel):
    """Mean and standard deviation of a modality over its brain, in the source's unit."""

    model_config = ConfigDict(frozen=True)

    mean: FiniteFloat
    std: FiniteFloat


class Source(BaseModel):
    """A file that a case was made from.

    Attributes
    ----------
    file
        Name of the file.
    sha256
        SHA-256 of its bytes.
    voxels
        SHA-256 of the image contents, which stays the same when the file is rewritten.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    sha256: str
    voxels: str = ""


class CaseMeta(BaseModel):
    """Attributes of a store, in the order in which they are written.

    Attributes
    ----------
    layout
        Layout of the source, e.g. `brats2020`.
    task
        The task in full, so that a store needs no task file.
    modalities
        The modalities of the case, in canonical order.
    geometry
        Position of the arrays in the source.
    label_convention
        Convention of the source's segmentation; outputs are written in it if it has every class of the task.
    scales
        Mean and standard deviation by modality: z x std + mean gives the source's value.
    dtypes
        Voxel type of the source by modality.
    volumes_ml
        Region volumes in millilitres; empty without a label.
    foreground
        Up to 1000 flat voxel indices (C order of the cropped label) by class, evenly spread, for sampling.
    sources
        Files by modality, and `seg`.
    allow
        Checks that were disabled when the case was converted.
    warnings
        What was unusual about the case.
    patient
        The patient according to the layout, if the name alone does not show it (`patient_of`).
    """

    model_config = ConfigDict(frozen=True)

    layout_version: Literal[2] = LAYOUT_VERSION
    case: str
    layout: str
    task: AnyTask
    modalities: tuple[str, ...]
    geometry: Geometry
    label_convention: LabelConvention
    scales: dict[str, Scale]
    dtypes: dict[str, str]
    volumes_ml: dict[str, float]
    foreground: dict[int, tuple[int, ...]]
    sources: dict[str, Source]
    allow: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    patient: str | None = None


def patient_of(case: str) -> str:
    """Return the patient in a case name: `BraTS-GLI-00000` for `BraTS-GLI-00000-001`, otherwise the case itself."""
    match = _SCAN.match(case)
    return match[1] if match else case

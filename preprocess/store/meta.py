"""What a store says about its case: the attributes of its Zarr group."""

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
    """A file a case was made from.

    Attributes
    ----------
    file
        Its name.
    sha256
        Of its bytes.
    voxels
        SHA-256 of what an image shows, which stays the same when the file is written again.
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
        What is segmented from what, whole, so that a store needs no file.
    modalities
        Those the case has, in canonical order.
    geometry
        Where the arrays lie in the source.
    label_convention
        Convention of the source's segmentation, in which outputs are written if it has every class of the task.
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
        Checks that were off when the case was converted.
    warnings
        What was odd about it.
    patient
        The patient by the layout, where the name alone does not show it (`patient_of`).
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
    """Return the patient that a name shows: `BraTS-GLI-00000` of `BraTS-GLI-00000-001`, else the case itself."""
    match = _SCAN.match(case)
    return match[1] if match else case

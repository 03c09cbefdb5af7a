"""What a store says about its case: the attributes of its Zarr group."""

import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, PlainSerializer

from preprocess.source.geometry import Geometry
from preprocess.source.labels import CONVENTIONS, LabelConvention

LAYOUT_VERSION: Final = 1
_SCAN = re.compile(r"^(BraTS-[A-Za-z]+-\d+)-\d{3}$")
_NamedConvention = Annotated[
    LabelConvention,
    BeforeValidator(lambda value: CONVENTIONS.get(value, value) if isinstance(value, str) else value),
    PlainSerializer(lambda convention: convention.name),
]


class Scale(BaseModel):
    """Mean and standard deviation of a modality over its brain, in the source's unit."""

    model_config = ConfigDict(frozen=True)

    mean: FiniteFloat
    std: FiniteFloat


class Source(BaseModel):
    """A file a case was made from: its name and the SHA-256 of its bytes."""

    model_config = ConfigDict(frozen=True)

    file: str
    sha256: str


class CaseMeta(BaseModel):
    """Attributes of a store, in the order in which they are written.

    Attributes
    ----------
    layout
        Layout of the source, e.g. `brats2020`.
    modalities
        Those the case has, in canonical order.
    geometry
        Where the arrays lie in the source.
    label_convention
        Convention of the source's segmentation, in which outputs are written; stored by its name.
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

    layout_version: Literal[1] = LAYOUT_VERSION
    case: str
    layout: str
    modalities: tuple[str, ...]
    geometry: Geometry
    label_convention: _NamedConvention
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

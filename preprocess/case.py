"""From the files of one case to normalised, cropped arrays: the one path that conversion and prediction share."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.checks import Finding, examine
from preprocess.errors import InputError
from preprocess.modalities import MODALITIES
from preprocess.normalise import Scale, z_scores
from preprocess.source import labels
from preprocess.source.geometry import Geometry, bounding_box, enclosing_box, make_geometry, to_canonical
from preprocess.source.labels import LabelConvention
from preprocess.source.layouts import CaseFiles
from preprocess.source.load import Loaded, load


@dataclass(frozen=True)
class Source:
    """A file a case was made from: its name and the SHA-256 of its bytes."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Prepared:
    """One case, ready for the store or the network.

    Attributes
    ----------
    z
        4 x D x H x W float16: z-scores of each modality on its own brain mask, 0 outside it and where absent.
    available
        The modalities that are there, in canonical order.
    label
        D x H x W uint8, classes 0..3, if there is a segmentation.
    geometry
        Where the arrays lie in the source.
    label_convention
        The convention of the source's segmentation, in which outputs are written.
    scales
        Mean and standard deviation by modality.
    sources
        Files by modality, and `seg`.
    dtypes
        Voxel type of the source by modality.
    warnings
        What is odd about the case.
    """

    case: str
    layout: str
    z: NDArray[np.float16]
    available: tuple[str, ...]
    label: NDArray[np.uint8] | None
    geometry: Geometry
    label_convention: LabelConvention
    scales: Mapping[str, Scale]
    sources: Mapping[str, Source]
    dtypes: Mapping[str, str]
    warnings: tuple[Finding, ...]

    @cached_property
    def image(self) -> NDArray[np.float32]:
        """The z-scores as float32: what reading them from the store gives."""
        return self.z.astype(np.float32)


def prepare(files: CaseFiles, modalities: Sequence[str] | None = None, *, allow: Collection[str] = ()) -> Prepared:
    """Read, check, orient, crop and normalise a case.

    Parameters
    ----------
    files
        The case, from `layouts.discover`.
    modalities
        The modalities to use, by default all that are there. The files of others are not opened.
    allow
        Names of checks that do not refuse the case.

    Raises
    ------
    InputError
        If a file cannot be read or a check refuses the case; every reason is in the message.
    """
    try:
        return _prepare(load(files, modalities), allow)
    except InputError as error:
        raise InputError(f"{files.case}: {error}") from None


def _prepare(case: Loaded, allow: Collection[str]) -> Prepared:
    findings = examine(case, allow)
    refused = [str(finding) for finding in findings if finding.refuses]
    if refused:
        raise InputError("; ".join(refused))
    affine = case.reference.affine
    images = {m: _clean(to_canonical(volume.array, affine)) for m, volume in case.images.items()}
    label = None if case.label is None else _classes(case)
    box = enclosing_box([bounding_box(a) for a in (*images.values(), label) if a is not None and a.any()])
    z = np.zeros((len(MODALITIES), *(part.stop - part.start for part in box)), np.float16)
    scales = {}
    for name, array in images.items():
        z[MODALITIES.index(name)], scales[name] = z_scores(np.ascontiguousarray(array[box]))
    return Prepared(
        case=case.files.case,
        layout=case.files.layout,
        z=z,
        available=tuple(images),
        label=None if label is None else np.ascontiguousarray(label[box]),
        geometry=make_geometry(case.reference.array.shape, affine, box),
        label_convention=case.convention,
        scales=scales,
        sources=_sources(case),
        dtypes={m: volume.array.dtype.name for m, volume in case.images.items()},
        warnings=tuple(findings),
    )


def _classes(case: Loaded) -> NDArray[np.uint8]:
    assert case.label is not None
    array = to_canonical(case.label.array, case.reference.affine)
    return labels.to_internal(array, case.convention, cavity_is_background=True)


def _clean(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array with 0 for voxels that are not finite."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return np.where(np.isfinite(array), array, 0)
    return array


def _sources(case: Loaded) -> dict[str, Source]:
    found = {m: Source(case.files.images[m].name, volume.sha256) for m, volume in case.images.items()}
    if case.label is not None and case.files.label is not None:
        found["seg"] = Source(case.files.label.name, case.label.sha256)
    return found

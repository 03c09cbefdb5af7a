"""From the files of one case to normalised, cropped arrays: the code path that conversion and prediction share."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.checks import Finding, examine
from preprocess.errors import InputError
from preprocess.normalise import z_scores
from preprocess.source.geometry import Geometry, bounding_box, enclosing_box, make_geometry, to_canonical
from preprocess.source.labels import to_classes
from preprocess.source.layouts import CaseFiles
from preprocess.source.load import Loaded, load, voxel_digest
from preprocess.store.meta import CaseMeta, Source, patient_of
from preprocess.task import Task

_FOREGROUND_VOXELS = 1000


@dataclass(frozen=True)
class Prepared:
    """One case, ready for the store or the network.

    Attributes
    ----------
    meta
        What a store records about the case.
    z
        M x D x H x W float16, M the sequences of the task: z-scores of each on its own brain mask, 0 outside it and
        where absent.
    label
        D x H x W uint8, classes of the task, if there is a segmentation.
    findings
        What is unusual about the case.
    """

    meta: CaseMeta
    z: NDArray[np.float16]
    label: NDArray[np.uint8] | None
    findings: tuple[Finding, ...]

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
        The modalities to use, by default all that exist. Files of other modalities are not opened.
    allow
        Names of checks that do not reject the case.

    Raises
    ------
    InputError
        If a file cannot be read or a check rejects the case; every reason is in the message.
    """
    try:
        return prepare_loaded(load(files, modalities), allow)
    except InputError as error:
        raise InputError(f"{files.case}: {error}") from None


def prepare_loaded(case: Loaded, allow: Collection[str] = ()) -> Prepared:
    """Check, orient, crop and normalise what has been read.

    Raises
    ------
    InputError
        If a check rejects the case; every reason is in the message.
    """
    findings = examine(case, allow)
    rejected = [str(finding) for finding in findings if finding.rejects]
    if rejected:
        raise InputError("; ".join(rejected))
    sources, case = _sources(case), case.without_placeholders()
    task, affine = case.files.task, case.reference.affine
    images = {m: _clean(to_canonical(volume.array, affine)) for m, volume in case.images.items()}
    label = None if case.label is None else to_classes(to_canonical(case.label.array, affine), case.convention)
    boxes = [bounding_box(array) for array in (*images.values(), label) if array is not None]
    box = enclosing_box([box for box in boxes if box])
    z = np.zeros((len(task.modalities), *(part.stop - part.start for part in box)), np.float16)
    scales = {}
    for name, array in images.items():
        try:
            z[task.modalities.index(name)], scales[name] = z_scores(np.ascontiguousarray(array[box]))
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    label = None if label is None else np.ascontiguousarray(label[box])
    geometry = make_geometry(case.reference.array.shape, affine, box, case.reference.forms)
    meta = CaseMeta(
        case=case.files.case,
        layout=case.files.layout,
        task=task,
        modalities=tuple(images),
        geometry=geometry,
        label_convention=case.convention,
        scales=scales,
        dtypes={m: volume.array.dtype.name for m, volume in case.images.items()},
        volumes_ml={} if label is None else region_volumes(label, geometry, task),
        foreground={} if label is None else _foreground(label, task),
        sources=sources,
        allow=tuple(sorted(allow)),
        warnings=tuple(str(finding) for finding in findings),
        patient=stored_patient(case.files),
    )
    return Prepared(meta, z, label, tuple(findings))


def stored_patient(files: CaseFiles) -> str | None:
    """Return the patient to record in a store if the name of the case does not show it."""
    return None if files.patient == patient_of(files.case) else files.patient


def _clean(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array with 0 for voxels that are not finite."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return np.where(np.isfinite(array), array, 0)
    return array


def _sources(case: Loaded) -> dict[str, Source]:
    found = {
        m: Source(file=case.files.images[m].name, sha256=v.sha256, voxels=voxel_digest(v))
        for m, v in case.images.items()
    }
    if case.label is not None and case.files.label is not None:
        found["seg"] = Source(file=case.files.label.name, sha256=case.label.sha256)
    return found


def region_volumes(label: NDArray[np.uint8], geometry: Geometry, task: Task) -> dict[str, float]:
    """Return the volume in millilitres of each region in a label map of task classes."""
    counts = np.bincount(label.ravel(), minlength=max(task.classes.values()) + 1)
    millilitres = float(np.prod(geometry.spacing)) / 1000
    return {region: float(counts[list(task.numbers(region))].sum() * millilitres) for region in task.regions}


def _foreground(label: NDArray[np.uint8], task: Task) -> dict[int, tuple[int, ...]]:
    flat = label.ravel()
    voxels = np.flatnonzero(flat)
    found = {}
    for number in sorted(task.classes.values()):
        mine = voxels[flat[voxels] == number]
        if mine.size:
            chosen = np.unique(np.linspace(0, mine.size - 1, min(mine.size, _FOREGROUND_VOXELS)).astype(np.intp))
            found[number] = tuple(mine[chosen].tolist())
    return found

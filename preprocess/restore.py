"""From the store back to the source's voxels: same axes, shape and position, to within the storage precision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import InputError
from preprocess.files import complete_or_absent
from preprocess.normalise import from_z_scores
from preprocess.source import nifti
from preprocess.source.geometry import to_source
from preprocess.source.labels import to_convention
from preprocess.store.reader import CaseStore


def restore_image(store: CaseStore, modality: str) -> NDArray[Any]:
    """Return a modality's voxels in the source's axes, shape and type.

    The error is at most 2^-11 |value - mean|, before rounding if the source has whole numbers.

    Raises
    ------
    InputError
        If the case lacks the modality, or its store is damaged.
    """
    values = from_z_scores(store.read((modality,))[0], store.meta.scales[modality])
    dtype = np.dtype(store.meta.dtypes[modality])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return to_source(values.astype(dtype), store.meta.geometry)


def restore_label(store: CaseStore) -> NDArray[np.uint8]:
    """Return the segmentation in the source's axes, shape and label convention.

    Raises
    ------
    InputError
        If there is no segmentation, or the store is damaged.
    """
    return to_source(to_convention(store.read_label(), store.meta.label_convention), store.meta.geometry)


def write_restored(dest: Path, case: str, out: Path, modalities: str | Sequence[str] = ()) -> list[Path]:
    """Write a case as NIfTI files: the named modalities, or by default all and the segmentation. Return their paths.

    Parameters
    ----------
    modalities
        Names, or one string joined by `+`; any alias is accepted.

    Raises
    ------
    InputError
        If the case or a named modality does not exist.
    """
    store = CaseStore(dest, case)
    names = store.meta.task.subset(modalities) if modalities else store.modalities
    absent = [m for m in names if m not in store.modalities]
    if absent:
        raise InputError(f"{case}: no {', '.join(absent)}; it has {', '.join(store.modalities)}")
    volumes: dict[str, NDArray[Any]] = {m: restore_image(store, m) for m in names}
    if store.has_label and not modalities:
        volumes["seg"] = restore_label(store)
    paths = []
    for name, volume in volumes.items():
        path = out / f"{case}_{name}.nii.gz"
        with complete_or_absent(path) as temporary:
            nifti.write(temporary, volume, store.meta.geometry.matrix, store.meta.geometry.forms)
        paths.append(path)
    return paths

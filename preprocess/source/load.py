"""Reading the files of one case as they are, before anything is checked or modified."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import InputError
from preprocess.source import nifti
from preprocess.source.geometry import to_canonical
from preprocess.source.labels import count_values, whole_numbers
from preprocess.source.layouts import CaseFiles
from preprocess.source.nifti import Volume
from preprocess.task import LabelConvention

_AXES = 3
_STEP = 3


@dataclass(frozen=True)
class Sample:
    """Every third voxel along each axis: enough for statistics of how images relate.

    Attributes
    ----------
    images
        D x H x W by modality, cropped to the brain from left to right; 0 for voxels that are not finite.
    mask
        Voxels that are brain in all images.
    label
        The segmentation's values as in the file.
    """

    images: Mapping[str, NDArray[np.float64]]
    mask: NDArray[np.bool_]
    label: NDArray[Any] | None


@dataclass(frozen=True)
class Loaded:
    """The contents of the files of a case.

    Attributes
    ----------
    files
        The names and paths.
    images
        3-D volume by modality, in the source's axes; only those asked for.
    label
        The segmentation, if there is one, with values near a whole number (`label_was_near`) rounded.
    convention
        What its values mean, if known (`files.numbering`); `label_counts` has the values found in it.
    """

    files: CaseFiles
    images: Mapping[str, Volume]
    label: Volume | None
    convention: LabelConvention
    label_counts: Mapping[int | float, int]
    label_was_near: bool = False

    @property
    def reference(self) -> Volume:
        """The first image, whose grid the others must share."""
        return next(iter(self.images.values()))

    @cached_property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Smallest and largest value of the finite voxels by modality; infinite if there are none."""
        return {m: _range(volume.array) for m, volume in self.images.items()}

    @cached_property
    def placeholders(self) -> Mapping[str, str]:
        """Images that stand for a missing sequence, with the reason: one value everywhere, or a copy of another."""
        found = {m: _one_value(low) for m, (low, high) in self.ranges.items() if low >= high}
        shown = [(m, volume.array) for m, volume in self.images.items() if m not in found]
        for (first, a), (second, b) in combinations(shown, 2):
            if np.array_equal(a, b):  # there is no way to tell which of the two is right
                found[second] = f"holds the same image as {first}"
                found.setdefault(first, f"holds the same image as {second}")
        return found

    def without_placeholders(self) -> Self:
        """Return the case without the images that stand for a missing sequence.

        Raises
        ------
        InputError
            If no images are left.
        """
        images = {m: volume for m, volume in self.images.items() if m not in self.placeholders}
        if not images:
            reasons = ", ".join(f"{m} {why}" for m, why in self.placeholders.items())
            raise InputError(f"all images are empty or copies: {reasons}")
        return replace(self, images=images) if self.placeholders else self

    @cached_property
    def sample(self) -> Sample:
        """A coarse view of the case, for volumes on one grid."""
        volumes = {m: self._coarse(volume).astype(np.float64) for m, volume in self.images.items()}
        mask = np.all([np.isfinite(a) & (a != 0) for a in volumes.values()], axis=0)
        found = np.flatnonzero(mask.any(axis=(0, 1)))
        cut = slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(None)
        return Sample(
            images={m: np.nan_to_num(a[:, :, cut], posinf=0.0, neginf=0.0) for m, a in volumes.items()},
            mask=mask[:, :, cut],
            label=None if self.label is None else self._coarse(self.label)[:, :, cut],
        )

    def _coarse(self, volume: Volume) -> NDArray[Any]:
        return to_canonical(volume.array, self.reference.affine)[::_STEP, ::_STEP, ::_STEP]


def _range(array: NDArray[Any]) -> tuple[float, float]:
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        return float(array.min(where=finite, initial=np.inf)), float(array.max(where=finite, initial=-np.inf))
    return float(array.min()), float(array.max())


def _one_value(value: float) -> str:
    return f"is {value:g} everywhere" if np.isfinite(value) else "has no finite voxels"


def voxel_digest(volume: Volume) -> str:
    """Return a digest of the image contents, independent of voxel type, zero margins and orientation."""
    array = to_canonical(volume.array, volume.affine)
    return sha256(array[array != 0].astype(np.float32).tobytes()).hexdigest()


def load(files: CaseFiles, modalities: Iterable[str] | None = None) -> Loaded:
    """Read the named modalities (by default all of the case) and the label; no other file is opened.

    Raises
    ------
    InputError
        If a file cannot be read, is not NIfTI or not 3-D; or if a named modality is missing.
    """
    if files.problem:
        raise InputError(files.problem)
    wanted = list(files.images) if modalities is None else list(modalities)
    absent = [m for m in wanted if m not in files.images]
    if absent or not wanted:
        raise InputError(f"no {' and no '.join(absent) or 'image'}; the case has {', '.join(files.images) or 'none'}")
    if files.channels:
        images = _split_channels(files.images[wanted[0]], files.channels, wanted)
    else:
        images = {m: read_volume(files.images[m]) for m in wanted}
    if files.label is None:
        return Loaded(files, images, None, files.convention, {})
    label, was_near = read_label(files.label)
    return Loaded(files, images, label, files.convention, count_values(label.array), was_near)


def _split_channels(path: Path, channels: Sequence[str], wanted: Iterable[str]) -> dict[str, Volume]:
    volume = nifti.read(path)
    if volume.array.ndim != _AXES + 1 or volume.array.shape[-1] != len(channels):
        raise InputError(f"{path}: shape {volume.array.shape}; expected {len(channels)} volumes: {', '.join(channels)}")
    return {m: replace(volume, array=volume.array[..., channels.index(m)]) for m in wanted}


def read_volume(path: Path) -> Volume:
    """Read one image or label map with three axes; further axes of length 1 are dropped.

    Raises
    ------
    InputError
        If the file cannot be read or has other axes; the message names it.
    """
    return with_three_axes(nifti.read(path), path)


def with_three_axes(volume: Volume, what: object) -> Volume:
    """Return a volume without further axes of length 1.

    Raises
    ------
    InputError
        If it has other axes; the message begins with `what`.
    """
    array = volume.array
    while array.ndim > _AXES and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != _AXES or 0 in array.shape:
        raise InputError(f"{what}: shape {np.shape(volume.array)}; expected one volume with three axes")
    return replace(volume, array=array)


def read_label(path: Path) -> tuple[Volume, bool]:
    """Read a label map; also return whether its values were not exactly whole numbers and have been rounded.

    Raises
    ------
    InputError
        As in `read_volume`.
    """
    volume = read_volume(path)
    whole = whole_numbers(volume.array)
    return replace(volume, array=whole), whole is not volume.array and not np.array_equal(whole, volume.array)

"""Checks of the grids: shape, position, direction and size of the voxels."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import nibabel as nib
import numpy as np

from preprocess.errors import RAW_SCANS, InputError
from preprocess.source.geometry import to_canonical
from preprocess.source.load import Loaded
from preprocess.source.nifti import Volume

_EXACT_MM = 0.01
_FARTHEST_VOXELS = 0.1
_CORNERS = np.array(list(product((0, 1), repeat=3)))
_USUAL_SPACING_MM = (0.9, 1.1)


def shapes(case: Loaded) -> Iterator[str]:
    """Images of different shapes."""
    shape = case.reference.array.shape
    first = next(iter(case.images))
    for name, volume in with_label(case):
        if volume.array.shape != shape:
            yield (
                f"{name} has shape {volume.array.shape}, {first} has {shape}; register and resample them together; "
                f"{RAW_SCANS}"
            )


def affines(case: Loaded) -> Iterator[str]:
    """Images that are not in the same position."""
    first, limit = next(iter(case.images)), _limit_mm(case.reference.affine)
    for name, volume in with_label(case):
        gap = _apart_mm(volume.affine, case.reference)
        if not gap <= limit:
            yield (
                f"{name} is up to {gap:.3g} mm away from {first} (affines differ), more than a tenth of a voxel; "
                f"register them together; {RAW_SCANS}"
            )


def shifts(case: Loaded) -> Iterator[str]:
    """Images less than a tenth of a voxel apart, as rounding in headers causes."""
    first, limit = next(iter(case.images)), _limit_mm(case.reference.affine)
    for name, volume in with_label(case):
        gap = _apart_mm(volume.affine, case.reference)
        if _EXACT_MM < gap <= limit:
            yield f"{name} is up to {gap:.3g} mm away from {first}, less than a tenth of a voxel; this is ignored"


def forms(case: Loaded) -> Iterator[str]:
    """A header whose two forms disagree."""
    for name, volume in with_label(case):
        if text := disagreement(volume):
            yield f"{name}: {text}"


def disagreement(volume: Volume) -> str:
    """Return a warning about a header whose sform and qform disagree; empty if they agree or there is only one."""
    sform, qform = volume.forms.sform, volume.forms.qform
    if sform is None or qform is None:
        return ""
    gap = _apart_mm(qform, replace(volume, affine=sform))
    if gap <= _limit_mm(sform):
        return ""
    sides = ", with left and right swapped" if _handedness(qform) != _handedness(sform) else ""
    return (
        f"sform and qform of the header are up to {gap:.3g} mm apart{sides}; the sform is used, both are kept, and a "
        "viewer that uses the qform shows another position; correct the header"
    )


def directions(case: Loaded) -> Iterator[str]:
    """An affine that does not give the axes a direction, or gives an impossible voxel size."""
    for name, volume in with_label(case):
        try:
            to_canonical(volume.array, volume.affine)
        except InputError as error:
            yield f"{name}: {error}"


def mirrored(case: Loaded) -> Iterator[str]:
    """An affine that mirrors left and right relative to another one."""
    first, reference = next(iter(case.images)), case.reference.affine
    for name, volume in with_label(case):
        if _handedness(volume.affine) != _handedness(reference):
            yield f"the affine of {name} swaps left and right relative to {first}; correct the header"


def unplaced(case: Loaded) -> Iterator[str]:
    """A header without the position of the volume."""
    lost = [name for name, volume in with_label(case) if volume.forms.sform is None and volume.forms.qform is None]
    if lost:
        yield f"{', '.join(lost)}: the header has no orientation (both form codes are 0); left and right are a guess"


def spacing(case: Loaded) -> Iterator[str]:
    """Voxels that are not about 1 mm."""
    sizes = nib.affines.voxel_sizes(case.reference.affine)
    low, high = _USUAL_SPACING_MM
    if not (sizes.min() >= low and sizes.max() <= high):
        text = " x ".join(f"{size:.3g}" for size in sizes)
        yield f"voxels of {text} mm; nothing is resampled, and models trained on BraTS expect 1 mm"


def with_label(case: Loaded) -> Iterator[tuple[str, Volume]]:
    """Yield the volumes with the names that messages use."""
    yield from case.images.items()
    if case.label is not None:
        yield "segmentation", case.label


def _apart_mm(affine: np.ndarray, other: Volume) -> float:
    """Return the largest distance between the corners of a volume under its own affine and under another."""
    corners = np.c_[_CORNERS * other.array.shape[:3], np.ones(len(_CORNERS))]
    return float(np.linalg.norm((corners @ (affine - other.affine).T)[:, :3], axis=1).max())


def _limit_mm(affine: np.ndarray) -> float:
    return _FARTHEST_VOXELS * float(nib.affines.voxel_sizes(affine).min())


def _handedness(affine: np.ndarray) -> float:
    return float(np.sign(np.linalg.det(affine[:3, :3])))

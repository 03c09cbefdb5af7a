"""Checks of the grids: shape, position, direction and size of the voxels."""

from collections.abc import Iterator

import nibabel as nib
import numpy as np

from preprocess.errors import InputError
from preprocess.source.geometry import to_canonical
from preprocess.source.load import Loaded
from preprocess.source.nifti import Volume

_AFFINE_TOLERANCE_MM = 0.01
_USUAL_SPACING_MM = (0.9, 1.1)


def shapes(case: Loaded) -> Iterator[str]:
    """Images of different shapes."""
    shape = case.reference.array.shape
    first = next(iter(case.images))
    for name, volume in with_label(case):
        if volume.array.shape != shape:
            yield f"{name} has shape {volume.array.shape}, {first} has {shape}; register and resample them together"


def affines(case: Loaded) -> Iterator[str]:
    """Images that do not lie in the same place."""
    first = next(iter(case.images))
    corner = np.array([*case.reference.array.shape, 1.0])
    for name, volume in with_label(case):
        gap = max(np.abs((volume.affine - case.reference.affine) @ point)[:3].max() for point in (np.eye(4)[3], corner))
        if not gap <= _AFFINE_TOLERANCE_MM:
            yield f"{name} lies up to {gap:.3g} mm away from {first} (affines differ); register them together"


def directions(case: Loaded) -> Iterator[str]:
    """An affine that gives the axes no direction, or voxels of a size that no scanner makes."""
    for name, volume in with_label(case):
        try:
            to_canonical(volume.array, volume.affine)
        except InputError as error:
            yield f"{name}: {error}"


def mirrored(case: Loaded) -> Iterator[str]:
    """An affine whose left and right are those of a mirror image of another's."""
    first, reference = next(iter(case.images)), case.reference.affine
    for name, volume in with_label(case):
        if _handedness(volume.affine) != _handedness(reference):
            yield f"{name} has left and right exchanged against {first} by its affine; correct the header"


def unplaced(case: Loaded) -> Iterator[str]:
    """A header that does not say where the volume lies."""
    lost = [name for name, volume in with_label(case) if not volume.placed]
    if lost:
        yield f"{', '.join(lost)}: the header holds no orientation (both form codes are 0); left and right are a guess"


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


def _handedness(affine: np.ndarray) -> float:
    return float(np.sign(np.linalg.det(affine[:3, :3])))

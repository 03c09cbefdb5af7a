"""Writing label maps as NIfTI in the space and label convention of where they came from."""

import os
from pathlib import Path

from ccsd.metrics.regions import Labels
from preprocess import nifti
from preprocess.files import remove, sync
from preprocess.geometry import Geometry, to_source
from preprocess.labels import LabelConvention, to_convention


def write_labels(path: Path, labels: Labels, geometry: Geometry, convention: LabelConvention) -> None:
    """Write classes 0..3 (cropped D x H x W) as `.nii.gz` on the grid of the source, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")  # ends in .nii.gz, which decides the format
    try:
        nifti.write(temporary, to_source(to_convention(labels, convention), geometry), geometry.matrix)
        sync(temporary)
        temporary.replace(path)
    finally:
        remove(temporary)


def read_labels(path: Path, geometry: Geometry, convention: LabelConvention) -> Labels:
    """Read what `write_labels` wrote: classes 0..3, cropped D x H x W."""
    from preprocess.geometry import to_canonical
    from preprocess.labels import to_internal

    volume = nifti.read(path)
    return to_internal(to_canonical(volume.array, volume.affine)[geometry.slices], convention)

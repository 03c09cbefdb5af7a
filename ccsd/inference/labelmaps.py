"""Writing label maps as NIfTI in the space and label convention of where they came from."""

from pathlib import Path

from ccsd.metrics.regions import Labels
from preprocess.files import complete_or_absent
from preprocess.source import nifti
from preprocess.source.geometry import Geometry, to_source
from preprocess.source.labels import LabelConvention, to_convention


def write_labels(path: Path, labels: Labels, geometry: Geometry, convention: LabelConvention) -> None:
    """Write classes 0..3 (cropped D x H x W) as NIfTI on the grid of the source, whole or not at all."""
    volume = to_source(to_convention(labels, convention), geometry)
    with complete_or_absent(path) as temporary:
        nifti.write(temporary, volume, geometry.matrix, compressed=path.name.endswith(".gz"))


def read_labels(path: Path, geometry: Geometry, convention: LabelConvention) -> Labels:
    """Read what `write_labels` wrote: classes 0..3, cropped D x H x W."""
    from preprocess.source.geometry import to_canonical
    from preprocess.source.labels import to_internal

    volume = nifti.read(path)
    return to_internal(to_canonical(volume.array, volume.affine)[geometry.slices], convention)

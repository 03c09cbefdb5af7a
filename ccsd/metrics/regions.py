"""Between label maps and the nested regions that are scored: whole tumour, tumour core, enhancing tumour."""

from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.modalities import LABELS, PAINT, REGIONS

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def paint(probabilities: npt.NDArray[Any], threshold: float = 0.5) -> Labels:
    """Return the label map of region probabilities.

    Regions are painted from the largest to the smallest, each in its class of `PAINT`. The label map is therefore
    always nested, whatever the network says: a voxel of ET belongs to TC and WT as well.

    Parameters
    ----------
    probabilities
        R x D x H x W in the order of `REGIONS`.
    threshold
        A voxel belongs to a region when its probability is above this.
    """
    labels = np.zeros(probabilities.shape[1:], np.uint8)
    for region, name in zip(probabilities, REGIONS, strict=True):
        labels[region > threshold] = LABELS[PAINT[name]]
    return labels


def region_mask(labels: Labels, region: str) -> Mask:
    """Return where a label map (D x H x W, classes 0 to 3) belongs to `WT`, `TC` or `ET`."""
    return np.asarray(_MEMBERSHIP[region][labels])


def clean_enhancing(labels: Labels, minimum: int) -> Labels:
    """Return the labels with ET turned into NCR when it has fewer than `minimum` voxels in all.

    The clean-up of the field: a handful of ET voxels in a tumour without enhancement scores a Dice of 0. TC and WT
    do not change. The input is returned as it is when nothing changes.
    """
    enhancing = labels == LABELS["ET"]
    if not 0 < np.count_nonzero(enhancing) < minimum:
        return labels
    cleaned = labels.copy()
    cleaned[enhancing] = LABELS["NCR"]
    return cleaned


_MEMBERSHIP = {name: np.isin(np.arange(len(LABELS) + 1), classes) for name, classes in REGIONS.items()}

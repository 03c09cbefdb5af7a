"""Whether an input looks like what the model was trained on, beyond what the reading of a case already warns about."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from preprocess.case import Prepared
from preprocess.task import Subset

LARGEST_BRAIN_ML = 2300.0
"""Larger than any brain; a whole head has about twice as much."""
MOST_ASTRAY = 0.02
"""Share of a segmentation that may lie in the background: a rim, where sequences end at different voxels."""


def oddities(case: Prepared) -> Iterator[str]:
    """Yield what a person should check before trusting the segmentation."""
    task = case.meta.task
    voxel_ml = float(np.prod(case.meta.geometry.spacing)) / 1000
    for name in case.meta.modalities:
        volume = np.count_nonzero(case.z[task.modalities.index(name)]) * voxel_ml
        if volume > LARGEST_BRAIN_ML:
            yield (
                f"{task.sequences[name]} has {volume:.0f} ml that are not background, more than any brain; the model "
                "was trained on skull-stripped images"
            )


def background_tumour(case: Prepared, used: Subset, labels: NDArray[np.uint8]) -> Iterator[str]:
    """Yield a warning when much of a segmentation lies where every sequence that was used is 0."""
    names = case.meta.task.modalities
    background = ~np.any([case.z[names.index(name)] != 0 for name in used], axis=0)
    tumour = np.count_nonzero(labels)
    share = np.count_nonzero(labels[background]) / tumour if tumour else 0.0
    if share > MOST_ASTRAY:
        yield (
            f"{100 * share:.0f} % of the segmented tumour lies in the background: do not trust it; the model was "
            "trained too little, or the images are not like those it was trained on"
        )

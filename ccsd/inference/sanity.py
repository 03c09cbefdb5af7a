"""Check whether an input looks like the training data, beyond the warnings that reading a case gives."""

from collections.abc import Iterator

import numpy as np

from preprocess.case import Prepared
from preprocess.errors import RAW_SCANS

LARGEST_BRAIN_ML = 2300.0
"""Larger than any brain; a whole head has about twice as much."""
MOST_ASTRAY = 0.02
"""Share of the tumour found that may lie outside the brain, such as a rim where sequences end at different voxels."""


def oddities(case: Prepared) -> Iterator[str]:
    """Yield warnings that a person should check before trusting the segmentation."""
    task = case.meta.task
    voxel_ml = float(np.prod(case.meta.geometry.spacing)) / 1000
    for name in case.meta.modalities:
        volume = np.count_nonzero(case.z[task.modalities.index(name)]) * voxel_ml
        if volume > LARGEST_BRAIN_ML:
            yield (
                f"{task.sequences[name]} has {volume:.0f} ml that are not background, more than any brain; the model "
                f"was trained on skull-stripped images, {RAW_SCANS}"
            )


def outside_the_brain(share: float) -> Iterator[str]:
    """Yield a warning if much of what the models would have painted lay outside the brain and was left out."""
    if share > MOST_ASTRAY:
        yield (
            f"{100 * share:.0f} % of the tumour that the model found lay outside the brain and was left out: do not "
            "trust the rest; the model was trained too little, or the images are not like those it was trained on"
        )

"""Whether an input looks like what the model was trained on, beyond what the reading of a case already warns about."""

from collections.abc import Iterator

import numpy as np

from ccsd.report.words import SHOWN
from preprocess.modalities import MODALITIES
from preprocess.prepare import Prepared

LARGEST_BRAIN_ML = 2300.0
"""Larger than any brain; a whole head has about twice as much."""


def oddities(case: Prepared) -> Iterator[str]:
    """Yield what a person should check before trusting the segmentation."""
    voxel_ml = float(np.prod(case.geometry.spacing)) / 1000
    for name in case.available:
        volume = np.count_nonzero(case.z[MODALITIES.index(name)]) * voxel_ml
        if volume > LARGEST_BRAIN_ML:
            yield (
                f"{SHOWN[name]} has {volume:.0f} ml that are not background, more than any brain; the model was "
                "trained on skull-stripped images"
            )

"""Whether an input looks like what the model was trained on: skull-stripped, and each sequence what its name says."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from ccsd.report.words import SHOWN
from preprocess.modalities import MODALITIES
from preprocess.prepare import Prepared

LARGEST_BRAIN_ML = 2300.0
"""Larger than any brain; a whole head has about twice as much."""
SAME_IMAGE = 0.995
SAME_CONTRAST = 0.8
"""Fluid is bright in T2 and dark in T1, so within the brain the two never go together this closely."""


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
    for first, second in combinations(case.available, 2):
        likeness = _correlation(case, first, second)
        if likeness > SAME_IMAGE:
            yield f"{SHOWN[first]} and {SHOWN[second]} are the same image; is one of them named wrongly?"
        elif {first, second} in ({"t1", "t2"}, {"t1ce", "t2"}) and likeness > SAME_CONTRAST:
            yield f"{SHOWN[first]} and {SHOWN[second]} have the same contrast; is one of them named wrongly?"


def _correlation(case: Prepared, first: str, second: str) -> float:
    a, b = (case.z[MODALITIES.index(name)] for name in (first, second))
    both = (a != 0) & (b != 0)
    if np.count_nonzero(both) < 2:  # noqa: PLR2004 - no correlation of one point
        return 0.0
    x, y = a[both].astype(np.float64), b[both].astype(np.float64)
    spread = x.std() * y.std()
    return float(np.mean((x - x.mean()) * (y - y.mean())) / spread) if spread > 0 else 0.0

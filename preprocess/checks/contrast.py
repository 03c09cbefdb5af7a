"""Checks of what the images look like: contrasts that suggest exchanged files, and sides that suggest a flip.

The expectations hold for skull-stripped brains and were chosen with wide margins; they warn and never refuse.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from preprocess.source.load import Loaded, Sample

_FEWEST = 200
_SIGNS = {("flair", "t1"): 1, ("flair", "t1ce"): 1, ("t1", "t1ce"): 1, ("t1", "t2"): -1, ("t1ce", "t2"): -1}
"""Pairs whose images rise and fall together (CSF dark in both) or against one another."""
_BRIGHTER = (("t1ce", "t1", "ET"), ("flair", "t1", "ED"), ("flair", "t1ce", "ED"))
"""Of two images, the one that is brighter in a part of the tumour, and the one that is darker."""
_MARGIN = 0.1
_FLIP_MARGIN = 0.15
_FEWEST_PAIRS = 2  # one alone may be chance, and does not say which of the two it is
_LABEL_GAP = 0.5  # standard deviations

Scores = Mapping[str, NDArray[np.float64]]


def contrasts(case: Loaded) -> Iterator[str]:
    """Images that relate to one another as those of other modalities do."""
    images, mask = case.sample.images, case.sample.mask
    if mask.sum() < _FEWEST:
        return
    scores = {name: _scores(volume[mask]) for name, volume in images.items()}
    odd = _against_expectation(scores, _MARGIN)
    if odd:
        texts = [f"{a} and {b} correlate by {r:.2f}, expected {'above' if r < 0 else 'below'} 0" for a, b, r in odd]
        yield f"{'; '.join(texts)}: are files of two modalities exchanged?"
        return
    for bright, dark, part in _BRIGHTER:
        if {bright, dark} <= set(scores) and _are_exchanged(scores[bright], scores[dark], _part(case, part)):
            yield f"{dark} is brighter than {bright} in {part}: are the two files exchanged?"


def flipped(case: Loaded) -> Iterator[str]:
    """An image or a segmentation whose left and right are exchanged against the others.

    What differs between the two halves of a head differs in all images, with the sign that the contrasts have.
    """
    images, mask = case.sample.images, case.sample.mask
    both = mask & mask[:, :, ::-1]
    if both.sum() < _FEWEST:
        return
    odd = _against_expectation({m: _scores((a - a[:, :, ::-1])[both]) for m, a in images.items()}, _FLIP_MARGIN)
    suspects = [m for m in images if len(odd) >= _FEWEST_PAIRS and all(m in pair for pair in odd)]
    if suspects:
        yield f"left and right of {suspects[0]} look exchanged against the other images"
        return
    for name in ("flair", "t2"):
        if name in images and _label_fits_mirrored(case.sample, name):
            yield f"the segmentation fits {name} better with left and right exchanged"
            return


def _against_expectation(scores: Scores, margin: float) -> list[tuple[str, str, float]]:
    """Return the pairs of images whose correlation has the wrong sign, with the correlation."""
    pairs = [(a, b, sign) for (a, b), sign in _SIGNS.items() if a in scores and b in scores]
    found = [(a, b, sign, float(np.mean(scores[a] * scores[b]))) for a, b, sign in pairs]
    return [(a, b, r) for a, b, sign, r in found if r * sign < -margin]


def _part(case: Loaded, name: str) -> NDArray[np.bool_]:
    """Return which of the masked voxels are labelled with a class; none where the task has no such class."""
    sample = case.sample
    if sample.label is None:
        return np.zeros(int(sample.mask.sum()), bool)
    number = case.files.task.classes.get(name)
    value = next((value for value, ours in case.convention.values.items() if ours == number), 0)
    if not value:
        return np.zeros(int(sample.mask.sum()), bool)
    return np.asarray(sample.label[sample.mask] == value)


def _label_fits_mirrored(sample: Sample, name: str) -> bool:
    """Return whether the tumour, bright in FLAIR and T2, is brighter where the segmentation's mirror image lies."""
    if sample.label is None:
        return False
    tumour, mask, volume = sample.label != 0, sample.mask, sample.images[name]
    straight, mirrored = tumour & mask, tumour[:, :, ::-1] & mask
    only_straight, only_mirrored = straight & ~mirrored, mirrored & ~straight
    if min(only_straight.sum(), only_mirrored.sum()) < _FEWEST // 10:
        return False
    gap = volume[only_mirrored].mean() - volume[only_straight].mean()
    return bool(gap > _LABEL_GAP * volume[mask].std())


def _scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation else values * 0


def _are_exchanged(bright: NDArray[np.float64], dark: NDArray[np.float64], part: NDArray[np.bool_]) -> bool:
    """Return whether what should be the darker image is clearly the brighter one in a part of the tumour."""
    return bool(part.sum() >= _FEWEST // 10 and dark[part].mean() > bright[part].mean() + _MARGIN)

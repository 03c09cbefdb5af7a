"""Checks of image contents: contrasts that suggest swapped files, and sides that suggest a flip.

The expectations hold for skull-stripped brains with or without a tumour. The checks warn and never reject a case. How
often they are wrong on real cases, and how many swaps they find, is in docs/development/robustness.md.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.source.load import Loaded, Sample

_FEWEST = 200
_DARK = 0.1
"""Share of the voxels that count as dark: fluid in T1 and FLAIR."""
_EXCHANGED = -0.2
"""No correctly named pair of real images came near this value; when swapped, nearly all are below it."""
_RESEMBLE = (
    # swapped pair, and the third image that one of them resembles more than the other does
    ("flair", "t1", "t2"),
    ("flair", "t1ce", "t2"),
    ("t1", "t2", "t1ce"),
    ("t1ce", "t2", "t1"),
)
_SIGNS = {("flair", "t1"): 1, ("flair", "t1ce"): 1, ("t1", "t1ce"): 1, ("t1", "t2"): -1, ("t1ce", "t2"): -1}
"""Sign of the correlation of each pair of images; positive if fluid is dark in both."""
_BRIGHTER = (("t1ce", "t1", "ET"), ("flair", "t1", "ED"), ("flair", "t1ce", "ED"))
"""The brighter and the darker of two images in a part of the tumour."""
_MARGIN = 0.1
_FLIP_MARGIN = 0.15
_FEWEST_PAIRS = 2  # a single pair may be chance, and does not show which of the two is wrong
_LABEL_GAP = 0.5  # standard deviations

Scores = Mapping[str, NDArray[np.float64]]


def contrasts(case: Loaded) -> Iterator[str]:
    """Images whose relation is that of other sequences."""
    sample = case.sample
    if sample.mask.sum() < _FEWEST:
        return
    from scipy.stats import rankdata  # all of scipy.stats: most who import this module check nothing

    inside = _inside(sample.mask)
    ranks = {name: _scores(rankdata(image[inside])) for name, image in sample.images.items()}
    found = min(_in_their_places(ranks), default=(0.0, "", ""))
    if found[0] < _EXCHANGED:
        yield f"{found[1]} looks like {found[2]} and vice versa; are the two files swapped?"
        return
    scores = {name: _scores(image[sample.mask]) for name, image in sample.images.items()}
    for bright, dark, part in _BRIGHTER:
        if {bright, dark} <= set(scores) and _are_exchanged(scores[bright], scores[dark], _part(case, part)):
            yield f"{dark} is brighter than {bright} in {part}; are the two files swapped?"


def _inside(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the inner half of a brain: the rim is dark in every sequence and hides their differences."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    return np.asarray(mask & (depth >= np.median(depth[mask])))


def _in_their_places(ranks: Scores) -> Iterator[tuple[float, str, str]]:
    """Yield how clearly each pair of images matches its names, from -2 to 2; swapping the images negates the number."""
    for first, second, third in _RESEMBLE:
        if {first, second, third} <= set(ranks):
            yield float(np.mean((ranks[first] - ranks[second]) * ranks[third])), first, second
    if {"flair", "t2"} <= set(ranks):  # fluid is bright in T2 alone
        fluid = _in_dark(ranks["t2"], ranks["flair"]) - _in_dark(ranks["flair"], ranks["t2"])
        yield fluid, "flair", "t2"


def _in_dark(values: NDArray[np.float64], of: NDArray[np.float64]) -> float:
    """Return the mean of one image where another is dark."""
    return float(values[of <= np.quantile(of, _DARK)].mean())


def flipped(case: Loaded) -> Iterator[str]:
    """An image or a segmentation whose left and right are swapped relative to the others.

    A difference between the two halves of a head appears in all images, with a sign that depends on the contrast.
    """
    images, mask = case.sample.images, case.sample.mask
    both = mask & mask[:, :, ::-1]
    if both.sum() < _FEWEST:
        return
    odd = _against_expectation({m: _scores((a - a[:, :, ::-1])[both]) for m, a in images.items()})
    suspects = [m for m in images if len(odd) >= _FEWEST_PAIRS and all(m in pair for pair in odd)]
    if suspects:
        yield f"left and right of {suspects[0]} look swapped relative to the other images"
        return
    for name in ("flair", "t2"):
        if name in images and _label_fits_mirrored(case.sample, name):
            yield f"the segmentation fits {name} better with left and right swapped"
            return


def _against_expectation(scores: Scores) -> list[tuple[str, str]]:
    """Return the pairs of images whose correlation has the wrong sign."""
    pairs = [(a, b, sign) for (a, b), sign in _SIGNS.items() if a in scores and b in scores]
    return [(a, b) for a, b, sign in pairs if float(np.mean(scores[a] * scores[b])) * sign < -_FLIP_MARGIN]


def _part(case: Loaded, name: str) -> NDArray[np.bool_]:
    """Return which of the masked voxels are labelled with a class; none if the task has no such class."""
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
    """Return whether the image that should be darker is clearly the brighter one in a part of the tumour."""
    return bool(part.sum() >= _FEWEST // 10 and dark[part].mean() > bright[part].mean() + _MARGIN)

"""Checks of voxel values: finite numbers, contrast, background, label values."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.errors import RAW_SCANS
from preprocess.normalise import LARGEST
from preprocess.source.labels import readings, wrong_values
from preprocess.source.load import Loaded

_FEWEST = 200  # sampled voxels
_TUMOUR_SHARE = 0.8  # of the brain
_HOLES_SHARE = 0.001  # of the brain: 0 before it became NaN
_FAINT, _FAINT_SHARE = 0.005, 0.05  # of the brightest voxels; of all that are not 0
_BRAIN_SHARE = 0.75  # of all voxels; a stripped head fills less of its volume


def placeholders(case: Loaded) -> Iterator[str]:
    """Images that stand for a missing sequence: zeros, or a copy of another one."""
    for name, why in case.placeholders.items():
        yield f"{name} {why}; replace or remove the file; if allowed, the sequence counts as absent"


def not_finite(case: Loaded) -> Iterator[str]:
    """Many voxels in the head that are NaN or infinite."""
    for name, (inside, _, limit) in _not_finite(case).items():
        if inside > limit:
            yield (
                f"{name} has {inside} voxels that are not finite (NaN or infinite); if allowed, they become background"
            )


def background_not_finite(case: Loaded) -> Iterator[str]:
    """NaN around the head, which some programs write as background, and in a few holes in it."""
    for name, (inside, outside, limit) in _not_finite(case).items():
        if number := outside + (inside if inside <= limit else 0):
            yield f"{name} has {number} voxels around the head that are not finite; they count as background"


def _not_finite(case: Loaded) -> dict[str, tuple[int, int, int]]:
    """Count voxels that are not finite: those inside the head, those around it, and how many are allowed inside."""
    found = {}
    for name, volume in case.images.items():
        if volume.array.dtype.kind != "f" or (finite := np.isfinite(volume.array)).all():
            continue
        dark = ~finite | (volume.array == 0)
        parts, _ = ndimage.label(dark)
        faces = [np.take(parts, [0, -1], axis) for axis in range(parts.ndim)]
        around = np.isin(parts, np.unique(np.concatenate([face.ravel() for face in faces]))) & ~finite
        outside, lost = int(np.count_nonzero(around)), int(np.count_nonzero(~finite))
        found[name] = (lost - outside, outside, int(_HOLES_SHARE * np.count_nonzero(~dark)))
    return found


def empty(case: Loaded) -> Iterator[str]:
    """Images that are empty, or whose values are too large or too small for 32 bits."""
    for name, (low, high) in case.ranges.items():
        array, largest = case.images[name].array, max(abs(low), abs(high))
        if np.isfinite(largest) and not 1 / LARGEST < largest < LARGEST:
            yield f"{name} has values up to {largest:g}; rescale the image to between {1 / LARGEST:g} and {LARGEST:g}"
        elif 0 in (low, high) and ((array == low) | (array == high)).all():
            yield f"{name} has one value ({low or high:g}) everywhere in the brain"


def label_numbering(case: Loaded) -> Iterator[str]:
    """A segmentation whose label numbers are not explained."""
    if case.label is None or case.files.numbering or set(case.label_counts) == {0}:
        return
    voxel_ml = abs(float(np.linalg.det(case.label.affine[:3, :3]))) / 1000
    listed = ", ".join(f"{value:g}" for value in sorted(case.label_counts))
    yield (
        f"the segmentation has the values {listed}, and neither the layout nor an option explains them; by "
        f"convention: {readings(case.label_counts, voxel_ml, case.files.task)}; name one: --labels NAME, or "
        "convert.labels in the configuration"
    )


def label_rounded(case: Loaded) -> Iterator[str]:
    """Label values such as 0.99999."""
    if case.label_was_near:
        yield "label values were not whole numbers; they were rounded by less than 0.001"


def brain_mask(case: Loaded) -> Iterator[str]:
    """A segmentation of nearly the whole brain."""
    sample = case.sample
    brain = int(sample.mask.sum())
    if sample.label is None or brain < _FEWEST:
        return
    share = int(np.count_nonzero(sample.label[sample.mask])) / brain
    if share > _TUMOUR_SHARE:
        yield f"the segmentation covers {share:.0%} of the brain; is it a mask of the brain?"


def label_values(case: Loaded) -> Iterator[str]:
    """Values that the label convention does not know."""
    if wrong := wrong_values(case.label_counts, case.convention):
        yield wrong


def no_class(case: Loaded) -> Iterator[str]:
    """Labels of the convention that the task does not have, such as the resection cavity in a task before treatment."""
    task = case.files.task
    for number, name in case.convention.foreign.items():
        if number in case.label_counts:
            what = name if task.word(name) == name else f"{name}, {task.word(name)}"
            yield (
                f"label {number} ({what}; {case.label_counts[number]} voxels) is not a class of the task {task.name}; "
                "if allowed, it counts as background"
            )


def background(case: Loaded) -> Iterator[str]:
    """Background that is not 0 and would count as brain."""
    for name, volume in case.images.items():
        corners = volume.array[:: volume.array.shape[0] - 1 or 1, :: volume.array.shape[1] - 1 or 1, [0, -1]]
        share = np.count_nonzero(np.nan_to_num(volume.array)) / volume.array.size
        if np.nan_to_num(corners).all() or share > _BRAIN_SHARE:
            yield (
                f"{name}: {share:.0%} of the voxels are not 0; is the skull stripped and the background 0? If not, "
                f"{RAW_SCANS}"
            )
        elif (faint := _faint(volume.array)) > _FAINT_SHARE:
            yield f"{name}: {faint:.0%} of the voxels that are not 0 are close to 0, and count as brain; set them to 0"


def _faint(array: NDArray[Any]) -> float:
    """Return the share of voxels close to 0 among those that are not 0: noise or ringing around the head."""
    if array.dtype.kind != "f":
        return 0.0
    sizes = np.abs(array[np.isfinite(array) & (array != 0)])
    return float(np.mean(sizes < _FAINT * np.percentile(sizes, 99))) if sizes.size else 0.0


def label_empty(case: Loaded) -> Iterator[str]:
    """A segmentation without tumour."""
    if case.label is not None and not set(case.label_counts) & set(case.convention.values):
        yield "the segmentation contains no tumour"


def label_outside(case: Loaded) -> Iterator[str]:
    """Tumour where every image is 0."""
    if case.label is None:
        return
    tumour = np.flatnonzero(case.label.array.ravel(order="F"))
    values = [volume.array.ravel(order="F")[tumour] for volume in case.images.values()]
    outside = int(np.all([v == 0 for v in values], axis=0).sum())
    if outside:
        yield f"{outside} voxels of the segmentation are where every image is 0"

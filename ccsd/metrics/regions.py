"""Convert between label maps and the regions that are predicted and scored."""

from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.task import Task

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]
"""Millimetres between voxels along the three axes."""


def paint(probabilities: npt.NDArray[Any], task: Task, threshold: float = 0.5) -> Labels:
    """Return the label map of region probabilities.

    Regions are painted in the order of the task, each with its class. The label map is therefore always consistent,
    whatever the network predicts: for gliomas, a voxel of ET belongs to TC and WT as well.

    Parameters
    ----------
    probabilities
        R x D x H x W in the order of the task's regions.
    threshold
        A voxel belongs to a region when its probability is above this.
    """
    channels = dict(zip(task.regions, probabilities, strict=True))
    labels = np.zeros(probabilities.shape[1:], np.uint8)
    for region, name in task.paint.items():
        labels[channels[region] > threshold] = task.classes[name]
    return labels


def region_mask(labels: Labels, region: str, task: Task) -> Mask:
    """Return where a label map (D x H x W, classes of the task) belongs to a region."""
    mask = np.zeros(labels.shape, np.bool_)
    for number in task.numbers(region):  # several times as fast as a table indexed by the labels
        mask |= labels == number
    return mask


def clean_up(labels: Labels, spacing: Spacing, task: Task) -> Labels:
    """Replace classes of which the whole case has too little by others, as the task specifies.

    This is the usual clean-up: a handful of ET voxels in a tumour without enhancement scores a Dice of 0. If nothing
    changes, the input is returned.
    """
    cleaned = labels
    for name, rule in task.cleanup.items():
        where = cleaned == task.classes[name]
        if 0 < np.count_nonzero(where) * float(np.prod(spacing)) < rule.below_mm3:
            cleaned = np.where(where, np.uint8(task.classes[rule.becomes]), cleaned)
    return cleaned


def cleanup_label(task: Task) -> str:
    """Return the clean-up as printed in tables, e.g. `ET<500mm3:NCR`."""
    rules = [f"{name}<{rule.below_mm3:g}mm3:{rule.becomes}" for name, rule in task.cleanup.items()]
    return ";".join(rules) or "none"

"""Estimate how good a segmentation is from the model's own probabilities."""

from typing import TYPE_CHECKING

from preprocess.task import Task

if TYPE_CHECKING:
    from torch import Tensor

COLUMN = "confidence"
"""Its name in tables and records."""
MEANING = (
    "the Dice estimated from the models' own probabilities, 0 to 1; 1 means that they are sure, not that they are right"
)


def confidence(probabilities: "Tensor", labels: "Tensor", task: Task) -> "Tensor":
    """Return the Dice estimated from probabilities, by region: R, float64, NaN where nothing is painted.

    It is 2 sum(p[m]) / (sum(m) + sum(p)), with m where the label map has the region.

    Parameters
    ----------
    probabilities
        R x D x H x W, 0 to 1; 0 outside the brain.
    labels
        D x H x W, classes of the task: the label map that was painted from them.
    task
        The task, which defines the regions.
    """
    import torch

    found = []
    for region, sure in zip(task.regions, probabilities, strict=True):
        painted = torch.isin(labels, labels.new_tensor(task.numbers(region)))
        voxels, whole = painted.sum(), sure.sum(dtype=torch.float64)
        dice = 2 * (sure * painted).sum(dtype=torch.float64) / (voxels + whole)
        found.append(torch.where(voxels > 0, dice.clamp(max=1), torch.nan))  # after blending, 1 may be 1.0000001
    return torch.stack(found)

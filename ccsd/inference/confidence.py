"""What a model's own probabilities say about how good its segmentation is."""

from typing import TYPE_CHECKING

from preprocess.task import Task

if TYPE_CHECKING:
    from torch import Tensor

COLUMN = "confidence"
"""Its name in tables and records."""
MEANING = (
    "the Dice that the models' own probabilities lead one to expect, 0 to 1: at 1 they are sure, which does not make "
    "them right"
)


def confidence(probabilities: "Tensor", labels: "Tensor", task: Task) -> "Tensor":
    """Return the Dice that probabilities lead one to expect, by region: R, float64, NaN where nothing is painted.

    That is 2 sum(p[m]) / (sum(m) + sum(p)), with m where the label map has the region.

    Parameters
    ----------
    probabilities
        R x D x H x W, 0 to 1, without what lies outside the brain.
    labels
        D x H x W, classes of the task: the label map that was painted by them.
    task
        What its regions consist of.
    """
    import torch

    found = []
    for region, sure in zip(task.regions, probabilities, strict=True):
        painted = torch.isin(labels, labels.new_tensor(task.numbers(region)))
        voxels, whole = painted.sum(), sure.sum(dtype=torch.float64)
        dice = 2 * (sure * painted).sum(dtype=torch.float64) / (voxels + whole)
        found.append(torch.where(voxels > 0, dice.clamp(max=1), torch.nan))  # blended, 1 may come to 1.0000001
    return torch.stack(found)

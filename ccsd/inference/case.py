"""One case on its own voxel grid: at the training's voxel spacing through the network, and back."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ccsd.errors import UsageError
from ccsd.inference.resample import needs_resampling, resample_image, resample_probabilities, target_shape
from ccsd.inference.window import predict_probabilities
from ccsd.metrics.surface import Spacing
from preprocess.modalities import Subset

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ccsd.config import Evaluation
    from ccsd.model import Run

SPACING = "spacing_mm"
_AXES = 3
_MOST_VOXELS = 512**3


def training_spacing(run: "Run") -> Spacing:
    """Return the millimetres between voxels along D, H, W that a model was trained at.

    Raises
    ------
    UsageError
        If its run.json does not say.
    """
    found = run.info.get(SPACING)
    if not isinstance(found, list) or len(found) != _AXES or not all(side > 0 for side in found):
        raise UsageError(
            f"run.json of the model: {SPACING} is {found}; it must be the voxel spacing of the training, in mm from "
            f'down to up, back to front, left to right, such as "{SPACING}": [1.0, 1.0, 1.0]; add it, or train again'
        )
    depth, height, width = (float(side) for side in found)
    return depth, height, width


def is_resampled(run: "Run", spacing: Spacing) -> bool:
    """Whether a case of this spacing is resampled for the network."""
    return needs_resampling(spacing, training_spacing(run))


def segment_case(
    run: "Run",
    image: npt.NDArray[Any],
    spacing: Spacing,
    subsets: Sequence[Subset],
    settings: "Evaluation",
    device: "torch.device",
) -> Iterator["Tensor"]:
    """Yield the region probabilities of a case for each combination of modalities: 3 x D x H x W, WT, TC, ET.

    Parameters
    ----------
    run
        The model.
    image
        4 x D x H x W, z-scored, 0 where a modality is absent.
    spacing
        Millimetres between its voxels along D, H, W.
    subsets
        The combinations.
    settings
        Overlap of the windows, and whether to average over mirror images.
    device
        Where to compute.

    Raises
    ------
    UsageError
        If the model's record does not say at which spacing it was trained, or the case would become too large.
    """
    import torch

    target = training_spacing(run)
    tensor = torch.from_numpy(image).to(device)
    shape = tuple(tensor.shape[1:])
    resample = needs_resampling(spacing, target)
    if resample:
        tensor = resample_image(tensor, _bounded(target_shape(shape, spacing, target)))
    found = predict_probabilities(
        run.net,
        tensor,
        subsets,
        patch=run.config.train.patch,
        overlap=settings.overlap,
        decode_batch=run.config.runtime.decode_batch,
        flips=settings.flips,
        autocast=run.config.train.precision == "bf16",
    )
    for regions in found:
        yield resample_probabilities(regions, shape) if resample else regions


def _bounded(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if prod(shape) > _MOST_VOXELS:
        sides = " x ".join(str(side) for side in reversed(shape))
        raise UsageError(
            f"at the training's voxel spacing the case would have {sides} voxels, more than any head; correct the "
            "voxel spacing in the headers"
        )
    return shape

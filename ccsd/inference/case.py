"""One case on its own voxel grid: at the training's voxel spacing through the network, and back."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ccsd.errors import UsageError
from ccsd.inference.resample import needs_resampling, resample_image, resample_probabilities, target_shape
from ccsd.inference.window import predict_probabilities
from ccsd.metrics.regions import Spacing
from preprocess.task import Subset, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ccsd.config import Evaluation
    from ccsd.model import TrainedModel

_MOST_VOXELS = 512**3


def training_spacing(model: "TrainedModel") -> Spacing:
    """Return the millimetres between voxels along D, H, W that a model was trained at.

    Raises
    ------
    UsageError
        If its run.json does not say.
    """
    if model.record.spacing_mm is None:
        raise UsageError(
            "run.json of the model: spacing_mm is missing; it must be the voxel spacing of the training, in mm from "
            'down to up, back to front, left to right, such as "spacing_mm": [1.0, 1.0, 1.0]; add it, or train again'
        )
    return model.record.spacing_mm


def is_resampled(model: "TrainedModel", spacing: Spacing) -> bool:
    """Whether a case of this spacing is resampled for the network."""
    return needs_resampling(spacing, training_spacing(model))


def segment_case(
    model: "TrainedModel",
    image: npt.NDArray[Any],
    spacing: Spacing,
    subsets: Sequence[Subset],
    settings: "Evaluation",
    device: "torch.device",
) -> Iterator["Tensor"]:
    """Yield the region probabilities of a case for each combination of modalities: R x D x H x W.

    Parameters
    ----------
    model
        The network with its configuration.
    image
        M x D x H x W, z-scored, 0 where a modality is absent.
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
        If the model's record does not say at which spacing it was trained, the case would become too large, or a GPU
        has too little memory for a window.
    """
    import torch

    try:
        target = training_spacing(model)
        tensor = torch.from_numpy(image).to(device)
        shape = tuple(tensor.shape[1:])
        resample = needs_resampling(spacing, target)
        if resample:
            tensor = resample_image(tensor, _bounded(target_shape(shape, spacing, target)))
        found = predict_probabilities(
            model.net,
            tensor,
            subsets,
            model.config.task,
            patch=model.config.train.patch,
            overlap=settings.overlap,
            decode_batch=model.config.runtime.decode_batch,
            flips=settings.flips,
            precision=model.config.train.precision,
        )
        for regions in found:
            yield resample_probabilities(regions, shape) if resample else regions
    except torch.OutOfMemoryError:
        raise UsageError(_out_of_memory(model, device)) from None


def paint_tensor(regions: "Tensor", task: Task, threshold: float = 0.5) -> "Tensor":
    """Return the label map (D x H x W, uint8) of region probabilities on their device, as `ccsd.metrics.paint` does.

    One byte a voxel leaves the device instead of four for each region.
    """
    import torch

    channels = dict(zip(task.regions, regions, strict=True))
    labels = torch.zeros(regions.shape[1:], dtype=torch.uint8, device=regions.device)
    for region, name in task.paint.items():
        labels.masked_fill_(channels[region] > threshold, task.classes[name])
    return labels


def _out_of_memory(model: "TrainedModel", device: "torch.device") -> str:
    import torch

    window = " x ".join(str(side) for side in model.config.train.patch)
    sizes = ""
    if device.type == "cuda":
        peak, total = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
        sizes = f": {peak / 2**30:.1f} GiB were in use of {total / 2**30:.1f} GiB"
    return (
        f"the GPU's memory is not enough for one combination of one window of {window} voxels{sizes}. End what else "
        "uses it (see nvidia-smi), use a GPU with more memory or --device cpu, or train with a smaller train.patch"
    )


def _bounded(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if prod(shape) > _MOST_VOXELS:
        sides = " x ".join(str(side) for side in reversed(shape))
        raise UsageError(
            f"at the training's voxel spacing the case would have {sides} voxels, more than any head; correct the "
            "voxel spacing in the headers"
        )
    return shape

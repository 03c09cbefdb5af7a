"""Segment one case: resample it to the training's voxel spacing, apply the network, and resample the result back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ccsd.errors import UsageError
from ccsd.inference.brain import brain_of, cut
from ccsd.inference.confidence import confidence
from ccsd.inference.resample import needs_resampling, resample_image, resample_probabilities, target_shape
from ccsd.inference.window import predict_probabilities
from ccsd.metrics.regions import Spacing
from ccsd.records import RunRecord
from ccsd.study import RECORD_FILE
from preprocess.task import Subset, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ccsd.config import Evaluation
    from ccsd.inference.ensemble import Ensemble

_MOST_VOXELS = 512**3


def training_spacing(record: RunRecord, path: Path | str = f"{RECORD_FILE} of the model") -> Spacing:
    """Return the voxel spacing that a model was trained at, in mm along D, H, W.

    Raises
    ------
    UsageError
        If its record, at `path`, does not contain it.
    """
    if record.spacing_mm is None:
        raise UsageError(
            f"{path}: spacing_mm is missing; it must be the voxel spacing of the training, in mm from "
            'down to up, back to front, left to right, such as "spacing_mm": [1.0, 1.0, 1.0]; add it, or train again'
        )
    return record.spacing_mm


def in_mm(spacing: Spacing) -> str:
    """Return a voxel spacing as people read it, from left to right first: `1 x 1 x 1.5 mm`."""
    return " x ".join(f"{side:g}" for side in reversed(spacing)) + " mm"


def is_resampled(ensemble: "Ensemble", spacing: Spacing) -> bool:
    """Return whether a case of this spacing is resampled for the network."""
    return needs_resampling(spacing, ensemble.spacing)


@dataclass(frozen=True)
class Segmented:
    """The models' result for one combination of modalities."""

    probabilities: "Tensor"
    """R x D x H x W, 0 outside the brain that the modalities of the combination show."""
    labels: "Tensor"
    """D x H x W, classes of the task: the label map painted from the probabilities."""
    outside: "Tensor"
    """A single number: the share of the voxels that would be painted but lie outside the brain."""
    confidence: "Tensor"
    """R, the Dice estimated from the probabilities: see `ccsd.inference.confidence`."""


def segment_case(
    ensemble: "Ensemble",
    image: npt.NDArray[Any],
    spacing: Spacing,
    subsets: Sequence[Subset],
    settings: "Evaluation",
    device: "torch.device",
) -> Iterator[Segmented]:
    """Yield the region probabilities of a case for each combination of modalities, 0 outside the brain it shows.

    Parameters
    ----------
    ensemble
        The models whose probabilities are averaged; usually one.
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
        If the case would become too large, or a GPU has too little memory for a window.
    """
    import torch

    try:
        target = ensemble.spacing
        own = torch.from_numpy(image).to(device)
        shape = tuple(own.shape[1:])
        resample = needs_resampling(spacing, target)
        seen = resample_image(own, _bounded(target_shape(shape, spacing, target))) if resample else own
        for subset, found in zip(subsets, mean_probabilities(ensemble, seen, subsets, settings), strict=True):
            regions = resample_probabilities(found, shape) if resample else found
            yield _within_the_brain(regions, own, subset, ensemble.task)
    except torch.OutOfMemoryError:
        raise UsageError(_out_of_memory(ensemble, device)) from None


def _within_the_brain(regions: "Tensor", image: "Tensor", subset: Subset, task: Task) -> Segmented:
    """Cut to the brain in the modalities of the combination, in place, on the case's own grid.

    Other modalities must not influence the result.
    """
    import torch

    with torch.inference_mode():
        brain = brain_of(image[[task.modalities.index(name) for name in subset]])
        outside = cut(regions, brain.to(regions.device))
        labels = paint_tensor(regions, task)
        return Segmented(regions, labels, outside, confidence(regions, labels, task))


def mean_probabilities(
    ensemble: "Ensemble", image: "Tensor", subsets: Sequence[Subset], settings: "Evaluation"
) -> "Tensor":
    """Return the mean of the models' region probabilities, K x R x D x H x W, of an image M x D x H x W.

    The models run one after another. Whatever their number, memory holds the sum, the volume that one model is
    filling, and one network on the image's device; the weights of the others stay in their files.
    """
    import torch

    total, several = None, len(ensemble.models) > 1
    for model in ensemble.models:
        with _on_device(model.net, image.device, lent=several):
            found = predict_probabilities(
                model.net,
                image,
                subsets,
                model.config.task,
                patch=model.config.train.patch,
                overlap=settings.overlap,
                decode_batch=model.config.runtime.decode_batch,
                flips=settings.flips,
                precision=model.config.train.precision,
            )
        with torch.inference_mode():
            total = found if total is None else _added(total, found)
        del found
    assert total is not None
    with torch.inference_mode():
        return total.div_(len(ensemble.models)) if several else total


@contextmanager
def _on_device(net: "nn.Module", device: "torch.device", *, lent: bool) -> Iterator[None]:
    """Keep a network on the device within the block; if it is only lent, restore its own weights afterwards.

    Those are mapped from their files, so that the system can drop them when memory is short, unlike a copy from the
    device.
    """
    own = net.state_dict() if lent else {}
    try:
        if lent:
            net.to(device)
        yield
    finally:
        if lent:
            net.load_state_dict(own, assign=True)


def _added(total: "Tensor", found: "Tensor") -> "Tensor":
    """Add to the sum in place; on the host if one of the two did not fit into the GPU's memory."""
    if total.device != found.device:
        total, found = total.cpu(), found.cpu()
    return total.add_(found)


def paint_tensor(regions: "Tensor", task: Task, threshold: float = 0.5) -> "Tensor":
    """Return the label map (D x H x W, uint8) of region probabilities on their device, as `ccsd.metrics.paint` does.

    One byte per voxel leaves the device instead of four per region.
    """
    import torch

    channels = dict(zip(task.regions, regions, strict=True))
    labels = torch.zeros(regions.shape[1:], dtype=torch.uint8, device=regions.device)
    for region, name in task.paint.items():
        labels.masked_fill_(channels[region] > threshold, task.classes[name])
    return labels


def _out_of_memory(ensemble: "Ensemble", device: "torch.device") -> str:
    import torch

    largest = max((model.config.train.patch for model in ensemble.models), key=prod)
    window = " x ".join(str(side) for side in largest)
    sizes = ""
    if device.type == "cuda":
        peak, total = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
        sizes = f": {peak / 2**30:.1f} GiB were in use of {total / 2**30:.1f} GiB"
    return (
        f"the GPU does not have enough memory for one combination of one window of {window} voxels{sizes}. End other "
        "programs that use it (see nvidia-smi), use a GPU with more memory or --device cpu, or train with a smaller "
        "train.patch"
    )


def _bounded(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if prod(shape) > _MOST_VOXELS:
        sides = " x ".join(str(side) for side in reversed(shape))
        raise UsageError(
            f"at the training's voxel spacing the case would have {sides} voxels, more than any head; fix the voxel "
            "spacing in the headers"
        )
    return shape

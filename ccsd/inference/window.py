"""Sliding-window inference: each window is encoded once and decoded for every wanted combination of modalities."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from ccsd.precision import inference_autocast
from preprocess.task import Subset, Task

Predictor = Callable[[Tensor], Tensor]
BATCH_VOXELS = 100_000
"""Windows are computed together up to this many voxels: PyTorch's convolutions are slow on the CPU for less."""
STITCH_SHARE = 0.5
"""Share of the device's free memory that the stitched output may take before it moves to the host."""


class Segmenter(Protocol):
    """What inference needs of a network."""

    def segment(self, image: Tensor, subsets: Tensor, decode_batch: int = 8) -> Tensor:
        """Return logits K x B x R x D x H x W of an image B x M x D x H x W for K subsets (K x M, bool)."""
        ...


def subset_masks(subsets: Sequence[Subset], task: Task, device: torch.device | str = "cpu") -> Tensor:
    """Return K x M, bool: which modalities each of K combinations has."""
    rows = [[modality in subset for modality in task.modalities] for subset in subsets]
    return torch.tensor(rows, dtype=torch.bool, device=device).reshape(len(rows), len(task.modalities))


@torch.inference_mode()
def predict_probabilities(
    net: Segmenter,
    image: Tensor,
    subsets: Sequence[Subset],
    task: Task,
    *,
    patch: Sequence[int],
    overlap: float = 0.5,
    decode_batch: int = 8,
    flips: bool = False,
    precision: str = "fp32",
) -> Tensor:
    """Return the region probabilities of one case for several combinations of modalities.

    Windows are blended with Gaussian weights; one that holds no brain at all is free of tumour without being computed.
    A volume smaller than the window is padded with zeros, which is what lies outside the brain. Memory is bounded by
    K x R float32 volumes and the activations of one window, of several when they are small.

    Parameters
    ----------
    net
        A network in evaluation mode; the windows go to the device of `image`.
    image
        M x D x H x W, z-scored, 0 where a modality is absent; absent modalities are never encoded.
    subsets
        K combinations.
    task
        What the network segments from what.
    patch
        The window: the training patch, which fits the network.
    overlap
        Share of a window that overlaps its neighbour, in [0, 1).
    decode_batch
        How many combinations are decoded together; fewer need less memory.
    flips
        Average over the 8 mirror images: 8 times the work.
    precision
        That of the training, in which a GPU computes where it can.

    Returns
    -------
    Tensor
        K x R x D x H x W, float32, in [0, 1]; on the image's device when it fits there.
    """
    device = image.device
    masks = subset_masks(subsets, task, device)
    channels = len(subsets) * len(task.regions)

    def probabilities(window: Tensor) -> Tensor:
        present = window.flatten(2).any(-1)
        seen = (masks & present[:, None]).any(-1)  # per combination, so that each answers as it would alone
        if not seen.any():  # nothing of the brain, as the images given show it: no tumour, and no work
            return window.new_zeros(len(window), channels, *window.shape[2:])
        with inference_autocast(precision, device):
            logits = net.segment(window, masks, decode_batch=decode_batch)
        found = torch.sigmoid(logits.float()).transpose(0, 1) * seen[..., None, None, None, None]
        return found.flatten(1, 2)  # B x K x R x ... -> B x KR x ...

    predictor = _mirrored(probabilities) if flips else probabilities
    stitched = blend(predictor, image, channels, patch, overlap, _stitch_device(image, channels))
    return stitched.reshape(len(subsets), len(task.regions), *image.shape[1:])


def blend(
    predictor: Predictor, image: Tensor, channels: int, patch: Sequence[int], overlap: float, device: torch.device
) -> Tensor:
    """Return the mean of overlapping windows, weighted by a Gaussian around each window's centre.

    Parameters
    ----------
    predictor
        Maps B x M x patch to B x C x patch, which is overwritten.
    image
        M x D x H x W; padded with zeros where it is smaller than the window.
    channels
        C.
    patch, overlap
        Sides of the window, and the share of it that overlaps its neighbour.
    device
        Where the result is added up.

    Returns
    -------
    Tensor
        C x D x H x W.
    """
    margins = [max(side - size, 0) for side, size in zip(patch, image.shape[1:], strict=True)]
    before = [margin // 2 for margin in margins]
    inner = [slice(start, start + size) for start, size in zip(before, image.shape[1:], strict=True)]
    image = pad(image, [n for b, m in zip(before[::-1], margins[::-1], strict=True) for n in (b, m - b)])
    weights = _gaussian(patch, image.device)
    total = image.new_zeros(channels, *image.shape[1:], device=device)
    count = total.new_zeros(total.shape[1:])
    windows = _windows(image.shape[1:], patch, overlap)
    together = max(1, BATCH_VOXELS // math.prod(patch))
    for first in range(0, len(windows), together):
        some = windows[first : first + together]
        found = predictor(torch.stack([image[(slice(None), *window)] for window in some])).mul_(weights)
        for window, values in zip(some, found.to(device), strict=True):
            total[(slice(None), *window)] += values
            count[window] += weights.to(device)
    total /= count
    return total[(slice(None), *inner)]


def _windows(shape: Sequence[int], patch: Sequence[int], overlap: float) -> list[tuple[slice, ...]]:
    """Return the windows that cover a volume, in order; the last one along each axis ends with the volume."""
    starts = []
    for size, side in zip(shape, patch, strict=True):
        step = max(1, int(side * (1 - overlap)))
        starts.append([min(number * step, size - side) for number in range(math.ceil((size - side) / step) + 1)])
    corners = itertools.product(*starts)
    return [tuple(slice(at, at + side) for at, side in zip(corner, patch, strict=True)) for corner in corners]


def _gaussian(patch: Sequence[int], device: torch.device) -> Tensor:
    """Return the weights of a window: a Gaussian of an eighth of each side, nowhere less than a thousandth."""
    weights = torch.ones((), device=device)
    for side in patch:
        x = torch.arange(-(side - 1) / 2, (side - 1) / 2 + 1, device=device)
        weights = weights[..., None] * torch.exp(x**2 / (-2 * (side / 8) ** 2))
    return weights.clamp(min=max(float(weights.min()), 1e-3))


def _mirrored(predictor: Predictor) -> Predictor:
    """Average a predictor over the 8 mirror images of its window."""
    axes = [axes for size in range(4) for axes in itertools.combinations((2, 3, 4), size)]

    def mean(window: Tensor) -> Tensor:
        total = predictor(window)
        for flipped in axes[1:]:
            total = total + predictor(window.flip(flipped)).flip(flipped)
        return total / len(axes)

    return mean


def _stitch_device(image: Tensor, channels: int) -> torch.device:
    if image.device.type != "cuda":
        return image.device
    free, _ = torch.cuda.mem_get_info(image.device)
    needed = channels * image[0].numel() * image.element_size()
    return image.device if needed < STITCH_SHARE * free else torch.device("cpu")

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

Predictor = Callable[[Tensor, Tensor], Tensor]
"""From windows (B x M x patch) and which modalities each shows (B x M, bool, on the host) to B x C x patch."""
BATCH_VOXELS = 100_000
"""Windows are computed together up to this many voxels: on the CPU, PyTorch's convolutions are slow for fewer."""
GPU_BATCH_VOXELS = 4 * 128**3
"""The same on a GPU, which is idle between kernels for small windows and for the coarse levels of large ones."""
GPU_BYTES_PER_VOXEL = 3000
"""Memory that a window may need; 1325 were counted for `unet` in bf16 with eight combinations decoded together."""
MEMORY_SHARE = 0.5
"""Share of a GPU's free memory for the windows computed together, and at most for the stitched output."""


class Segmenter(Protocol):
    """What inference requires of a network."""

    def segment(
        self, image: Tensor, subsets: Tensor, decode_batch: int = 8, encoded: Sequence[int] | None = None
    ) -> Tensor:
        """Return logits K x B x R x D x H x W of an image B x M x D x H x W for K subsets (K x M, bool).

        `encoded` lists the modalities of all subsets together, so that the network need not read them from the device.
        """
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

    Windows are blended with Gaussian weights; a window without any brain is taken as free of tumour and not computed.
    A volume smaller than the window is padded with zeros, the value outside the brain. Memory is bounded by K x R
    float32 volumes and the activations of one window, or of several if they are small or a GPU has space for them. If a
    GPU runs out of memory, fewer windows are computed and fewer combinations decoded together. The host waits for the
    device only before the first window.

    Parameters
    ----------
    net
        A network in evaluation mode; the windows go to the device of `image`.
    image
        M x D x H x W, z-scored, 0 where a modality is absent; absent modalities are never encoded.
    subsets
        K combinations.
    task
        The task of the network.
    patch
        Size of the window: that of the training patch, which fits the network.
    overlap
        Share of a window that overlaps its neighbour, in [0, 1).
    decode_batch
        How many combinations are decoded together; fewer need less memory.
    flips
        Average over the 8 mirror images: 8 times the work.
    precision
        Precision of the training, which a GPU uses where it can.

    Returns
    -------
    Tensor
        K x R x D x H x W, float32, in [0, 1]; on the image's device when it fits there.

    Raises
    ------
    torch.OutOfMemoryError
        If a GPU cannot decode one combination of one window.
    """
    device = image.device
    masks = subset_masks(subsets, task)
    encoded = tuple(masks.any(0).nonzero().flatten().tolist())
    masks_there = masks.to(device)
    channels = len(subsets) * len(task.regions)

    def probabilities(window: Tensor, present: Tensor, together: int) -> Tensor:
        seen = (masks[:, None] & present).any(-1)  # K x B, so that each combination gives the same result as alone
        if not seen.any():  # no brain in the given images: no tumour, and no work
            return window.new_zeros(len(window), channels, *window.shape[2:])
        with inference_autocast(precision, device):
            logits = net.segment(window, masks_there, decode_batch=together, encoded=encoded)
        found = torch.sigmoid(logits.float()).transpose(0, 1)
        if not seen.all():
            found = found * seen.T.to(device, non_blocking=True)[..., None, None, None, None]
        return found.flatten(1, 2)  # B x K x R x ... -> B x KR x ...

    predictor: Predictor = _WithinMemory(probabilities, min(decode_batch, len(subsets)))
    predictor = _mirrored(predictor) if flips else predictor
    stitched = blend(predictor, image, channels, patch, overlap, _stitch_device(image, channels))
    return stitched.reshape(len(subsets), len(task.regions), *image.shape[1:])


class _WithinMemory:
    """Computes windows together, in smaller portions once a GPU has run out of memory."""

    def __init__(self, compute: Callable[[Tensor, Tensor, int], Tensor], decode_batch: int) -> None:
        self._compute, self._decode_batch, self._windows = compute, decode_batch, 0

    def __call__(self, window: Tensor, present: Tensor) -> Tensor:
        if self._windows == 0:
            self._windows = len(window)
        while True:
            portions = zip(torch.split(window, self._windows), torch.split(present, self._windows), strict=True)
            try:
                found = [self._compute(*portion, self._decode_batch) for portion in portions]
                return found[0] if len(found) == 1 else torch.cat(found)
            except torch.OutOfMemoryError:
                if self._windows == self._decode_batch == 1:
                    raise
            # Only here has the exception released what was computed.
            if window.is_cuda:
                torch.cuda.empty_cache()
            if self._windows > 1:
                self._windows = -(-self._windows // 2)
            else:
                self._decode_batch = -(-self._decode_batch // 2)


def blend(
    predictor: Predictor, image: Tensor, channels: int, patch: Sequence[int], overlap: float, device: torch.device
) -> Tensor:
    """Return the mean of overlapping windows, weighted by a Gaussian around each window's centre.

    Parameters
    ----------
    predictor
        Maps windows to B x C x patch, which is overwritten.
    image
        M x D x H x W; padded with zeros where it is smaller than the window.
    channels
        C.
    patch, overlap
        Sides of the window, and the share of it that overlaps its neighbour.
    device
        Where the result is accumulated.

    Returns
    -------
    Tensor
        C x D x H x W.
    """
    margins = [max(side - size, 0) for side, size in zip(patch, image.shape[1:], strict=True)]
    before = [margin // 2 for margin in margins]
    inner = [slice(start, start + size) for start, size in zip(before, image.shape[1:], strict=True)]
    image = pad(image, [n for b, m in zip(before[::-1], margins[::-1], strict=True) for n in (b, m - b)])
    weights = _gaussian(patch).to(image.device)
    total = image.new_zeros(channels, *image.shape[1:], device=device)
    count = total.new_zeros(total.shape[1:])
    windows = _windows(image.shape[1:], patch, overlap)
    present = torch.stack([image[(slice(None), *window)].flatten(1).any(-1) for window in windows]).cpu()
    weights_there = weights.to(device)
    together = max(1, _batch_voxels(image.device) // math.prod(patch))
    for some, shown in zip(_chunks(windows, together), torch.split(present, together), strict=True):
        found = predictor(torch.stack([image[(slice(None), *window)] for window in some]), shown).mul_(weights)
        for window, values in zip(some, found.to(device), strict=True):
            total[(slice(None), *window)] += values
            count[window] += weights_there
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


def _gaussian(patch: Sequence[int]) -> Tensor:
    """Return the weights of a window: a Gaussian of an eighth of each side, nowhere less than a thousandth."""
    weights = torch.ones(())
    for side in patch:
        x = torch.arange(-(side - 1) / 2, (side - 1) / 2 + 1)
        weights = weights[..., None] * torch.exp(x**2 / (-2 * (side / 8) ** 2))
    return weights.clamp(min=max(float(weights.min()), 1e-3))


def _mirrored(predictor: Predictor) -> Predictor:
    """Average a predictor over the 8 mirror images of its window."""
    axes = [axes for size in range(4) for axes in itertools.combinations((2, 3, 4), size)]

    def mean(window: Tensor, present: Tensor) -> Tensor:
        total = predictor(window, present)
        for flipped in axes[1:]:
            total = total + predictor(window.flip(flipped), present).flip(flipped)
        return total / len(axes)

    return mean


def _chunks(windows: list[tuple[slice, ...]], size: int) -> list[list[tuple[slice, ...]]]:
    return [windows[first : first + size] for first in range(0, len(windows), size)]


def _batch_voxels(device: torch.device) -> int:
    if device.type != "cuda":
        return BATCH_VOXELS
    return min(GPU_BATCH_VOXELS, int(MEMORY_SHARE * _free_memory(device)) // GPU_BYTES_PER_VOXEL)


def _stitch_device(image: Tensor, channels: int) -> torch.device:
    if image.device.type != "cuda":
        return image.device
    needed = channels * image[0].numel() * image.element_size()
    return image.device if needed < MEMORY_SHARE * _free_memory(image.device) else torch.device("cpu")


def _free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a GPU, or kept by PyTorch's allocator for the next tensor."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)

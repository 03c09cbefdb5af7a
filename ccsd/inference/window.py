"""Sliding-window inference: each window is encoded once and decoded for every wanted combination of modalities."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from preprocess.modalities import MODALITIES, REGIONS, Subset

Predictor = Callable[[Tensor], Tensor]
BATCH_VOXELS = 100_000
"""Windows are computed together up to this many voxels: PyTorch's convolutions are slow on the CPU for less."""
STITCH_SHARE = 0.5
"""Share of the device's free memory that the stitched output may take before it moves to the host."""


class Segmenter(Protocol):
    """What inference needs of a network."""

    def segment(self, image: Tensor, subsets: Tensor, decode_batch: int = 8) -> Tensor:
        """Return logits K x B x 3 x D x H x W of an image B x 4 x D x H x W for K subsets (K x 4, bool)."""
        ...


def subset_masks(subsets: Sequence[Subset], device: torch.device | str = "cpu") -> Tensor:
    """Return K x 4, bool: which modalities each of K combinations has."""
    rows = [[modality in subset for modality in MODALITIES] for subset in subsets]
    return torch.tensor(rows, dtype=torch.bool, device=device).reshape(len(rows), len(MODALITIES))


@torch.inference_mode()
def predict_probabilities(
    net: Segmenter,
    image: Tensor,
    subsets: Sequence[Subset],
    *,
    patch: Sequence[int],
    overlap: float = 0.5,
    decode_batch: int = 8,
    flips: bool = False,
    autocast: bool = False,
) -> Tensor:
    """Return the region probabilities of one case for several combinations of modalities.

    Windows are blended with Gaussian weights; one that holds no brain at all is free of tumour without being computed.
    A volume smaller than the window is padded with zeros, which is what lies outside the brain. Memory is bounded by
    K x 3 float32 volumes and the activations of one window, of several when they are small.

    Parameters
    ----------
    net
        A network in evaluation mode; the windows go to the device of `image`.
    image
        4 x D x H x W, z-scored, 0 where a modality is absent; absent modalities are never encoded.
    subsets
        K combinations.
    patch
        The window: the training patch, which fits the network.
    overlap
        Share of a window that overlaps its neighbour, in [0, 1).
    decode_batch
        How many combinations are decoded together; fewer need less memory.
    flips
        Average over the 8 mirror images: 8 times the work.
    autocast
        Compute in bfloat16 where the device is a GPU.

    Returns
    -------
    Tensor
        K x 3 x D x H x W, float32, in [0, 1], in the order WT, TC, ET; on the image's device when it fits there.
    """
    from monai.inferers.utils import sliding_window_inference

    device = image.device
    masks = subset_masks(subsets, device)
    channels = len(subsets) * len(REGIONS)

    def probabilities(window: Tensor) -> Tensor:
        present = window.flatten(2).any(-1)
        seen = (masks & present[:, None]).any(-1)  # per combination, so that each answers as it would alone
        if not seen.any():  # nothing of the brain, as the images given show it: no tumour, and no work
            return window.new_zeros(len(window), channels, *window.shape[2:])
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast and device.type == "cuda"):
            logits = net.segment(window, masks, decode_batch=decode_batch)
        found = torch.sigmoid(logits.float()).transpose(0, 1) * seen[..., None, None, None, None]
        return found.flatten(1, 2)  # B x K x 3 x ... -> B x 3K x ...

    stitched = sliding_window_inference(
        image[None],
        roi_size=tuple(patch),
        sw_batch_size=max(1, BATCH_VOXELS // math.prod(patch)),
        predictor=_mirrored(probabilities) if flips else probabilities,
        overlap=overlap,
        mode="gaussian",
        sw_device=device,
        device=_stitch_device(device, channels * image[0].numel() * image.element_size()),
    )
    assert isinstance(stitched, Tensor)
    return stitched[0].reshape(len(subsets), len(REGIONS), *image.shape[1:])


def _mirrored(predictor: Predictor) -> Predictor:
    """Average a predictor over the 8 mirror images of its window."""
    axes = [axes for size in range(4) for axes in itertools.combinations((2, 3, 4), size)]

    def mean(window: Tensor) -> Tensor:
        total = predictor(window)
        for flipped in axes[1:]:
            total = total + predictor(window.flip(flipped)).flip(flipped)
        return total / len(axes)

    return mean


def _stitch_device(device: torch.device, needed: int) -> torch.device:
    if device.type != "cuda":
        return device
    free, _ = torch.cuda.mem_get_info(device)
    return device if needed < STITCH_SHARE * free else torch.device("cpu")

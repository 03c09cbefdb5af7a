"""A picture of one validation case: the reference beside what the network sees from each combination of modalities."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.files import complete_or_absent
from preprocess.modalities import REGIONS
from preprocess.store.reader import CaseStore

Picture = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.bool_]
COLOURS = {"WT": (86, 180, 233), "TC": (213, 94, 0), "ET": (240, 228, 66)}
"""What is drawn last lies on top, so these show oedema, necrosis and enhancing tumour. Okabe and Ito's palette."""
OPACITY = 0.5
HEIGHT = 160
"""Pixels that a panel has at least."""
GAP = 4


def overlay(store: CaseStore, reference: Masks, predicted: Masks) -> Picture:
    """Draw the axial slice with the most tumour: image, reference, one panel for each combination, side by side.

    Parameters
    ----------
    store
        The case.
    reference
        R x D x H x W.
    predicted
        K x R x D x H x W.

    Returns
    -------
    Picture
        H x W x 3, anterior up, the patient's right on the left.
    """
    index = _slice_of_interest(reference)
    image = _grey(store, index)
    panels = [image, *(_coloured(image, regions[:, index]) for regions in (reference, *predicted))]
    factor = max(1, -(-HEIGHT // image.shape[0]))
    large = [panel[::-1, ::-1].repeat(factor, 0).repeat(factor, 1) for panel in panels]
    gap = np.full((large[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for panel in large for part in (panel, gap)][:-1], axis=1)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a PNG; equal pictures give equal bytes."""
    from matplotlib.image import imsave

    with complete_or_absent(path) as temporary:
        imsave(temporary, picture, format="png", metadata={"Software": "ccsd"})


def _slice_of_interest(reference: Masks) -> int:
    """Return the slice with the most tumour; small regions lie in several masks and so count more."""
    area = reference.sum(axis=(0, 2, 3))
    return int(area.argmax()) if area.any() else len(area) // 2


def _grey(store: CaseStore, index: int) -> Picture:
    """Return one slice of FLAIR, or of what there is, as RGB from the 1st to the 99.5th percentile of the brain."""
    modality = "flair" if "flair" in store.modalities else store.modalities[0]
    _, height, width = store.shape
    image = store.read((modality,), (slice(index, index + 1), slice(0, height), slice(0, width)))[0, 0]
    brain = image[image != 0]
    low, high = np.percentile(brain, [1, 99.5]) if brain.size else (0.0, 1.0)
    grey = np.where(image == 0, 0, np.clip((image - low) / max(high - low, 1e-6), 0.08, 1))
    return np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2)


def _coloured(image: Picture, regions: Masks) -> Picture:
    """Lay R x H x W masks over an H x W x 3 picture."""
    top = np.zeros(image.shape, np.float32)
    for name, mask in zip(REGIONS, regions, strict=True):
        top[mask] = COLOURS[name]
    inside = np.any(regions, axis=0, keepdims=True)[0, ..., np.newaxis]
    mixed = np.where(inside, (1 - OPACITY) * image + OPACITY * top, image)
    return mixed.astype(np.uint8)

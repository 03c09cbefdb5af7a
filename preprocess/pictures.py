"""Pictures of slices: an image in grey, the classes of a label map in colour, the outline of another."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.task import Task

Picture = NDArray[np.uint8]
"""H x W x 3, in the radiological view: anterior up, the patient's right on the left."""
Labels = NDArray[np.uint8]

COLOURS = {
    "orange": (213, 94, 0),
    "blue": (86, 180, 233),
    "yellow": (240, 228, 66),
    "green": (0, 158, 115),
    "purple": (204, 121, 167),
    "dark blue": (0, 114, 178),
    "amber": (230, 159, 0),
}
"""The palette of Okabe and Ito, which colour-blind readers can tell apart; used in turn for class 1, 2, ..."""
HEIGHT = 160
"""Smallest size of a picture in pixels."""
_OPACITY = 0.5
_DARKEST = 0.08  # of the brain; what is outside is black
_GAP = 4


def colour(number: int) -> tuple[str, tuple[int, int, int]]:
    """Return the name and the red, green and blue (0 to 255) of the colour of a class, numbered from 1."""
    return list(COLOURS.items())[(number - 1) % len(COLOURS)]


def slice_of_interest(label: Labels, task: Task) -> int:
    """Return the axial slice of a D x H x W label map with the most tumour; a voxel of a smaller region counts more."""
    area = sum(np.isin(label, task.numbers(region)).sum(axis=(1, 2)) for region in task.regions)
    return int(np.argmax(area)) if np.any(area) else len(label) // 2


def draw(
    image: NDArray[np.generic], label: Labels | None = None, outlined: Labels | None = None, height: int = HEIGHT
) -> Picture:
    """Draw one slice.

    Parameters
    ----------
    image
        H x W, 0 outside the brain; grey from the 1st to the 99.5th percentile of the rest.
    label
        H x W, classes to draw over the image, each in its own colour.
    outlined
        H x W, classes whose union gets a white outline.
    height
        Smallest height in pixels; a smaller image is enlarged by the next whole number.
    """
    factor = max(1, -(-height // image.shape[0]))
    picture = np.repeat(_enlarged(grey(image), factor)[..., np.newaxis], 3, axis=2)
    if label is not None:
        large = _enlarged(label, factor)
        for number in range(1, int(label.max()) + 1):
            where = large == number
            picture[where] = (1 - _OPACITY) * picture[where] + _OPACITY * np.array(colour(number)[1])
    if outlined is not None:
        tumour = _enlarged(outlined, factor) != 0
        picture[ndimage.binary_dilation(tumour) & ~tumour] = np.iinfo(np.uint8).max
    return picture[::-1, ::-1]


def side_by_side(pictures: Sequence[Picture], gap: int = _GAP) -> Picture:
    """Return pictures of one height in a row, `gap` white pixels apart."""
    white = np.full((len(pictures[0]), gap, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, white)][:-1], axis=1)


def png(picture: Picture) -> bytes:
    """Return a PNG file; equal pictures give equal bytes."""
    return _encoded(picture, format="png", metadata={"Software": "ccsd"})


def jpeg(picture: Picture) -> bytes:
    """Return a JPEG file, a quarter of the size."""
    return _encoded(picture, format="jpg", pil_kwargs={"quality": 75})


def _encoded(picture: Picture, **options: Any) -> bytes:
    from matplotlib.image import imsave

    buffer = BytesIO()
    imsave(buffer, picture, **options)
    return buffer.getvalue()


def _enlarged(plane: NDArray[np.generic], factor: int) -> NDArray[np.generic]:
    return plane.repeat(factor, 0).repeat(factor, 1)


def grey(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return an image from 0 to 255: the 1st to the 99.5th percentile of what is not 0, black outside."""
    finite = np.nan_to_num(image, posinf=0, neginf=0)
    brain = finite[finite != 0]
    low, high = np.percentile(brain, [1, 99.5]) if brain.size else (0.0, 1.0)
    grey = np.where(finite == 0, 0, np.clip((finite - low) / max(high - low, 1e-6), _DARKEST, 1))
    return (255 * grey).astype(np.uint8)

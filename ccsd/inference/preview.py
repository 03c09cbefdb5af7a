"""A picture of a prediction: slices of the sequences that were used, with the outlines of the regions."""

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ccsd.metrics.regions import Labels, region_mask
from preprocess.case import Prepared, region_volumes
from preprocess.pictures import colour, grey
from preprocess.task import Subset, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SEQUENCES = 4
"""How many sequences are shown at most."""
PLANES = {"axial": ("R", "L"), "coronal": ("R", "L"), "sagittal": ("A", "P")}
"""Planes across D, H and W, with what is on the left and on the right of each, as radiologists look at them."""
_INCHES, _MARGIN, _DPI = 2.4, 0.6, 100
_FAINT = (0.75, 0.75, 0.75)
_EDGE = 0.5


def draw_preview(case: Prepared, labels: Labels, name: str, used: Subset) -> bytes:
    """Return a PNG file: a row for each sequence (the first four), a column for each plane.

    Each plane is where it shows the most tumour, or in the middle if there is none. Voxels are drawn at their physical
    size, also in thick slices. The patient's right is on the left; in sagittal planes, the front is on the left.

    Parameters
    ----------
    case
        What was segmented.
    labels
        D x H x W, classes of the task, cropped as the case.
    name
        Name of the case.
    used
        The sequences that were used.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    task, shown = case.meta.task, used[:MOST_SEQUENCES]
    places = [_place(labels, axis, task) for axis in range(len(PLANES))]
    height = _INCHES * len(shown) + 2 * _MARGIN
    figure = Figure(figsize=(_INCHES * len(PLANES) + _MARGIN, height), dpi=_DPI, facecolor="black")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(shown), len(PLANES), squeeze=False)
    figure.subplots_adjust(0.05, _MARGIN / height, 1, 1 - _MARGIN / height, 0, 0)
    for row, sequence in zip(grid, shown, strict=True):
        image = case.z[task.modalities.index(sequence)]
        for axis, axes in enumerate(row):
            _draw(axes, image, labels, axis, places[axis], case)
        row[0].set_ylabel(task.sequences[sequence], color="white")
    for axes, plane in zip(grid[0], PLANES, strict=True):
        axes.set_title(plane, color="white", fontsize=9, pad=2)
    title = f"{name}: segmented from {', '.join(task.sequences[one] for one in used)}"
    figure.suptitle(title, color="white", fontsize=10, parse_math=False)  # names may contain two $
    _legend(figure, region_volumes(labels, case.meta.geometry, task), task)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "ccsd"}, facecolor="black")
    return buffer.getvalue()


def _legend(figure: "Figure", volumes: dict[str, float], task: Task) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=_rgb(number), label=f"{region} {volumes[region]:.1f} ml")
        for number, region in enumerate(task.regions, 1)
    ]
    figure.legend(handles=entries, loc="lower center", ncols=4, frameon=False, labelcolor="white", fontsize=9)


def _place(labels: Labels, axis: int, task: Task) -> int:
    """Return the slice across an axis that has the most tumour; a voxel of several regions counts for each."""
    others = tuple(other for other in range(labels.ndim) if other != axis)
    area = sum(np.count_nonzero(region_mask(labels, region, task), axis=others) for region in task.regions)
    return int(np.argmax(area)) if np.any(area) else labels.shape[axis] // 2


def _draw(axes: "Axes", image: NDArray[np.float16], labels: Labels, axis: int, place: int, case: Prepared) -> None:
    """Draw one plane: upwards along its first axis, with higher indices of its second axis on the left."""
    task, spacing = case.meta.task, [side for i, side in enumerate(case.meta.geometry.spacing) if i != axis]
    plane = np.pad(grey(np.take(image, place, axis)), 1)
    up, across = (np.arange(size) * side for size, side in zip(plane.shape, spacing, strict=True))
    edges = [-_EDGE * spacing[1], across[-1] + _EDGE * spacing[1], -_EDGE * spacing[0], up[-1] + _EDGE * spacing[0]]
    axes.imshow(plane, cmap="gray", vmin=0, vmax=255, origin="lower", extent=(edges[0], edges[1], edges[2], edges[3]))
    cut = np.take(labels, place, axis)
    for number, region in enumerate(task.regions, 1):
        mask = np.pad(region_mask(cut, region, task), 1)
        if mask.any():
            axes.contour(across, up, mask, levels=[_EDGE], colors=[_rgb(number)], linewidths=1.2)
    reach = max(size * side for size, side in zip(labels.shape, case.meta.geometry.spacing, strict=True)) / 2
    axes.set_xlim(across[-1] / 2 + reach, across[-1] / 2 - reach)  # one scale for all planes
    axes.set_ylim(up[-1] / 2 - reach, up[-1] / 2 + reach)
    axes.set(xticks=[], yticks=[], facecolor="black", aspect="equal")
    for x, align, text in zip((0.02, 0.98), ("left", "right"), list(PLANES.values())[axis], strict=True):
        axes.text(x, 0.97, text, transform=axes.transAxes, color=_FAINT, fontsize=8, ha=align, va="top")


def _rgb(number: int) -> tuple[float, float, float]:
    red, green, blue = colour(number)[1]
    return red / 255, green / 255, blue / 255

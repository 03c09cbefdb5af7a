"""Building blocks of phantoms: coordinates in brain units, smooth random fields, soft shapes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Shape = tuple[int, int, int]
Triple = Sequence[float] | NDArray[np.float64]

HEAD = (0.76, 1.0, 0.77)
"""Half axes of a brain, left-right, front-back, up-down, relative to the front-back one."""
_FILL = 0.46


@dataclass(frozen=True)
class Grid:
    """Coordinates of a volume whose axes run left, posterior, superior.

    Attributes
    ----------
    shape
        Voxels along each axis.
    unit
        Voxels per brain unit: half the length of a brain from front to back.
    """

    shape: Shape
    unit: float

    @classmethod
    def of(cls, shape: Shape) -> "Grid":
        """Return the grid that an average brain just fits into."""
        return cls(shape, min(_FILL * n / extent for n, extent in zip(shape, HEAD, strict=True)))

    @property
    def axes(self) -> tuple[Array, Array, Array]:
        """Open coordinates in brain units, 0 at the centre of the volume; they broadcast to `shape`."""
        lines = [((np.arange(n) - (n - 1) / 2) / self.unit).astype(np.float32) for n in self.shape]
        return lines[0][:, None, None], lines[1][None, :, None], lines[2][None, None, :]

    def field(self, rng: np.random.Generator, cells: float) -> Array:
        """Return a smooth random field of zero mean and unit variance, with about `cells` bumps per brain unit."""
        counts = [max(4, round(n / self.unit * cells) + 4) for n in self.shape]
        values = rng.standard_normal(counts).astype(np.float32)
        for axis, (n, count) in enumerate(zip(self.shape, counts, strict=True)):
            values = np.moveaxis(np.tensordot(_bumps(n, count), values, (1, axis)), 0, axis)
        return np.ascontiguousarray(values)

    def ellipsoid(self, centre: Triple, radii: Triple) -> Array:
        """Return the distance from `centre` in units of `radii`: below 1 inside the ellipsoid. Brain units."""
        x, y, z = (((axis - c) / r) ** 2 for axis, c, r in zip(self.axes, centre, radii, strict=True))
        return np.asarray(np.sqrt(x + y + z), np.float32)

    def inside(self, value: Array, width: float = 1.0) -> Array:
        """Return soft membership, 1 where `value` (brain units) is well above 0; the edge is `width` voxels wide."""
        return soft(value, max(width, 0.3) / self.unit)


def soft(value: Array, width: float) -> Array:
    """Return a logistic step of `value` at 0, rising over about `width`."""
    return np.asarray(0.5 * (1 + np.tanh(value * (2 / width))), np.float32)


def _bumps(n: int, count: int) -> Array:
    """Return `n` x `count` Gaussian weights whose rows have unit length, so that noise keeps its variance."""
    spacing = n / (count - 3)
    centres = (np.arange(count) - 1) * spacing
    weights = np.exp(-0.5 * ((np.arange(n)[:, None] - centres[None, :]) / (0.6 * spacing)) ** 2)
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True), np.float32)

"""The classes of a task in a phantom: parts of its tumour for known names, and shells for unknown ones.

| class | what is drawn |
|---|---|
| `WT` | the whole tumour, below the others |
| `GTV` | its core, below the others |
| `ED`, `SNFH` | oedema |
| `NCR`, `NETC`, `NET`, `NC` | necrosis |
| `ET` | the enhancing rim |
| `CC` | a cyst: one half of the necrosis |
| `RC` | a cavity as bright as CSF: the other half, in every third case |

Classes with other names are shells, from outside to inside in the order of their numbers: of the whole tumour if the
task has none of these classes, otherwise of the inner half of the class with the most voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.phantom.fields import Mask
from preprocess.phantom.tumour import ENHANCING, NECROTIC, OEDEMA
from preprocess.task import Task

_PARTS = {
    "WT": (OEDEMA, NECROTIC, ENHANCING),
    "GTV": (NECROTIC, ENHANCING),
    "ED": (OEDEMA,),
    "SNFH": (OEDEMA,),
    "NCR": (NECROTIC,),
    "NETC": (NECROTIC,),
    "NET": (NECROTIC,),
    "NC": (NECROTIC,),
    "ET": (ENHANCING,),
}
"""Parts of the tumour by class, in the order in which they are painted."""
_FLUIDS = {"CC": 0.6, "RC": 1.0}
"""How similar to CSF a class appears."""
_CAVITY_EVERY, _CAVITY_FIRST = 3, 1


@dataclass(frozen=True)
class Extra:
    """A part that the usual tumour does not have.

    Attributes
    ----------
    name
        Its class.
    where
        Its voxels.
    fluid
        How similar to CSF it is, 0 to 1; None if each sequence has its own brightness for it.
    """

    name: str
    where: Mask
    fluid: float | None


def paint_classes(parts: NDArray[np.uint8], task: Task, index: int) -> tuple[NDArray[np.uint8], list[Extra]]:
    """Return the label map in classes of the task, and the parts to draw in addition to the tumour.

    Parameters
    ----------
    parts
        Parts of a tumour, as `make_tumour` labels them.
    index
        Index of the case in its cohort.
    """
    label = np.zeros_like(parts)
    for name, numbers in _PARTS.items():
        if name in task.classes:
            label[np.isin(parts, numbers)] = task.classes[name]
    extras = []
    for name, where in _fluids(parts, index).items():
        if name in task.classes:
            label[where] = task.classes[name]
            extras.append(Extra(name, where, _FLUIDS[name]))
    others = sorted(set(task.classes) - set(_PARTS) - set(_FLUIDS), key=lambda name: task.classes[name])
    for name, where in zip(others, _shells(label, parts, len(others)), strict=True):
        label[where] = task.classes[name]
        extras.append(Extra(name, where, None))
    return label, extras


def _fluids(parts: NDArray[np.uint8], index: int) -> dict[str, Mask]:
    """Return the two halves of the necrosis; the cavity is empty in most cases."""
    necrosis = parts == NECROTIC
    rows = np.flatnonzero(necrosis.any(axis=(0, 2)))
    front = np.zeros_like(necrosis)
    if rows.size:
        front[:, : int(np.median(np.nonzero(necrosis)[1])) + 1] = True
    has_cavity = index % _CAVITY_EVERY == _CAVITY_FIRST
    return {"CC": necrosis & ~front, "RC": necrosis & front & has_cavity}


def _shells(label: NDArray[np.uint8], parts: NDArray[np.uint8], count: int) -> Sequence[Mask]:
    """Return masks with equal numbers of voxels, from outside to inside."""
    if not count:
        return []
    from scipy import ndimage  # Snakemake asks for the names of phantoms each time that it starts

    sizes = np.bincount(label.ravel())
    sizes[0] = 0
    if sizes.any():
        where = label == int(np.argmax(sizes))
        share = 0.5
    else:
        where, share = parts != 0, 1.0
    voxels = np.flatnonzero(where)
    depth = ndimage.distance_transform_edt(parts != 0).ravel()[voxels]
    inwards = voxels[np.argsort(depth, kind="stable")]
    chosen = inwards[len(inwards) - int(share * len(inwards)) :]
    shells = []
    for mine in np.array_split(chosen, count):
        shell = np.zeros(parts.size, bool)
        shell[mine] = True
        shells.append(shell.reshape(parts.shape))
    return shells

"""Phantom cohorts in the file layouts of BraTS: `ccsd phantom DEST --cases 24 --size 64 --seed 0`."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import InputError
from preprocess.files import complete_or_absent, make_folder, write_text
from preprocess.modalities import MODALITIES
from preprocess.phantom.anatomy import make_anatomy
from preprocess.phantom.fields import Grid, Shape
from preprocess.phantom.signal import make_images
from preprocess.phantom.tumour import make_tumour
from preprocess.source import labels, nifti

PhantomCase = tuple[dict[str, NDArray[np.int16]], NDArray[np.uint8]]

_SUFFIXES_2020 = {m: f"_{m}" for m in MODALITIES} | {"seg": "_seg"}
_SUFFIXES_2023 = {"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "seg": "-seg"}
_SMALLEST, LARGEST = 32, 1024
MARK = "PHANTOMS.txt"
"""File that says that the cases beside it are phantoms."""
_FOLLOW_UP_EVERY = 5
_HEAD, _LESION = 0, 1


def case_names(cases: int) -> list[str]:
    """Return the names of a cohort's cases: by turns in the 2020 and in the 2023 naming.

    Every fifth case of the 2023 naming is a second scan (`-001`) of the patient before it.
    """
    return [_name(index) for index in range(cases)]


def make_case(shape: Shape, *, seed: int, index: int, difficulty: float) -> PhantomCase:
    """Return images by modality and the label map (classes as in `LABELS`) of one case, axes left-posterior-superior.

    What is drawn depends on the arguments alone. Two scans of one patient share the head, not the tumour.
    """
    grid = Grid.of(shape)
    head = index - 2 if _is_follow_up(index) else index
    anatomy = make_anatomy(grid, np.random.default_rng([seed, head, _HEAD]))
    rng = np.random.default_rng([seed, index, _LESION])
    tumour = make_tumour(grid, anatomy, rng)
    return make_images(grid, anatomy, tumour, rng, difficulty), tumour.label


def write_cohort(dest: Path, *, cases: int, size: int | Shape, seed: int, difficulty: float = 0.5) -> Iterator[str]:
    """Write a cohort below `dest`, one folder of five files per case, and yield each case's name when it is complete.

    Parameters
    ----------
    size
        Voxels (1 mm) along each axis, or along all.

    Raises
    ------
    InputError
        If a number is out of its range, or `dest` holds cases that are no phantoms.
    """
    shape = (size, size, size) if isinstance(size, int) else size
    _check(cases, shape, seed, difficulty)
    names = case_names(cases)
    _claim(dest, names)
    for index, name in enumerate(names):
        images, label = make_case(shape, seed=seed, index=index, difficulty=difficulty)
        _write_case(dest, name, images, label)
        yield name


def _claim(dest: Path, names: list[str]) -> None:
    """Refuse to replace cases of the same names that somebody else put there: real ones have such names."""
    mark = dest / MARK
    taken = [name for name in names if (dest / name).exists()]
    if taken and not mark.exists():
        raise InputError(
            f"{dest}: has cases that `ccsd phantom` did not write, for example {taken[0]}, which a phantom of the same "
            "name would replace; choose another folder"
        )
    make_folder(dest)
    write_text(mark, "Made by `ccsd phantom`; it may replace the cases here.\n")


def _write_case(dest: Path, name: str, images: dict[str, NDArray[np.int16]], label: NDArray[np.uint8]) -> None:
    new_naming = name.startswith("BraTS-GLI")
    suffixes = _SUFFIXES_2023 if new_naming else _SUFFIXES_2020
    convention = labels.CONVENTIONS["brats2023" if new_naming else "brats2020"]
    volumes = {**images, "seg": labels.to_convention(label, convention).astype(np.int16)}
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = label.shape[1] - 1  # as BraTS places its volumes
    with complete_or_absent(dest / name) as folder:
        folder.mkdir()
        for key, volume in volumes.items():
            nifti.write(folder / f"{name}{suffixes[key]}.nii.gz", volume, affine)


def _name(index: int) -> str:
    number = index // 2
    if index % 2 == 0:
        return f"BraTS20_Training_{number + 1:03d}"
    if _is_follow_up(index):
        return f"BraTS-GLI-{number - 1:05d}-001"
    return f"BraTS-GLI-{number:05d}-000"


def _is_follow_up(index: int) -> bool:
    return index % 2 == 1 and (index // 2) % _FOLLOW_UP_EVERY == _FOLLOW_UP_EVERY - 1


def _check(cases: int, shape: Shape, seed: int, difficulty: float) -> None:
    if cases < 1:
        raise InputError(f"phantom cases: {cases}; give at least 1")
    if min(shape) < _SMALLEST:
        raise InputError(f"phantom size: {min(shape)}; give at least {_SMALLEST} voxels, smaller tumours have no parts")
    if max(shape) > LARGEST:
        raise InputError(f"phantom size: {max(shape)}; give at most {LARGEST} voxels")
    if seed < 0:
        raise InputError(f"phantom seed: {seed}; give 0 or more")
    if not 0 <= difficulty <= 1:
        raise InputError(f"phantom difficulty: {difficulty}; give a number from 0 (easy) to 1 (hard)")

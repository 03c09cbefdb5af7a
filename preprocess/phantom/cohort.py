"""Phantom cohorts: `ccsd phantom DEST --cases 24 --size 64 --seed 0`.

Cohorts of the default task have the file layouts of BraTS 2020 and 2023. Those of any other task have other names, and
a layout file beside them that describes them, so that nothing has to be specified or guessed.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from preprocess.errors import InputError
from preprocess.files import complete_or_absent, make_folder, remove, write_text
from preprocess.phantom.anatomy import make_anatomy
from preprocess.phantom.classes import paint_classes
from preprocess.phantom.fields import Grid, Shape
from preprocess.phantom.signal import make_images
from preprocess.phantom.tumour import make_tumour
from preprocess.source import labels, nifti
from preprocess.source.layouts import FOLDER_LAYOUT
from preprocess.source.layouts.layout import SEGMENTATION
from preprocess.task import Task, default_task, is_shipped

PhantomCase = tuple[dict[str, NDArray[np.int16]], NDArray[np.uint8]]

_SUFFIXES_2023 = {"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "seg": "-seg"}
_SMALLEST, LARGEST = 32, 1024
MARK = "PHANTOMS.txt"
"""File that marks the cases beside it as phantoms."""
_FOLLOW_UP_EVERY = 5
_HEAD, _LESION = 0, 1


def case_names(cases: int, task: Task) -> list[str]:
    """Return the names of a cohort's cases.

    The default task alternates between the 2020 and the 2023 naming; every fifth case of the 2023 naming is a second
    scan (`-001`) of the previous patient. Other tasks have `Phantom-00001-0`, with the scan at the end.
    """
    name = _brats_name if _is_default(task) else _own_name
    return [name(index) for index in range(cases)]


def make_case(shape: Shape, *, seed: int, index: int, difficulty: float, task: Task) -> PhantomCase:
    """Return images by modality and the label map in classes of the task of one case, axes left-posterior-superior.

    The result depends only on the arguments. Two scans of one patient share the head, not the tumour.
    """
    grid = Grid.of(shape)
    anatomy = make_anatomy(grid, np.random.default_rng([seed, _head(index), _HEAD]))
    rng = np.random.default_rng([seed, index, _LESION])
    tumour = make_tumour(grid, anatomy, rng)
    label, extras = paint_classes(tumour.label, task, index)
    return make_images(grid, anatomy, tumour, rng, difficulty, sequences=task.sequences, extras=extras), label


def write_cohort(
    dest: Path, *, cases: int, size: int | Shape, seed: int, task: Task, difficulty: float = 0.5
) -> Iterator[str]:
    """Write a cohort below `dest`, one folder of files per case, and yield each case's name when it is complete.

    Parameters
    ----------
    size
        Voxels (1 mm) along all axes, or along each.
    task
        The segmentation task.

    Raises
    ------
    InputError
        If a number is out of range, or `dest` contains cases that are not phantoms.
    """
    shape = (size, size, size) if isinstance(size, int) else size
    _check(cases, shape, seed, difficulty)
    names = case_names(cases, task)
    _claim(dest, names)
    _write_layout(dest, task)
    for index, name in enumerate(names):
        images, label = make_case(shape, seed=seed, index=index, difficulty=difficulty, task=task)
        _write_case(dest, name, images, label, task)
        yield name


def _claim(dest: Path, names: list[str]) -> None:
    """Mark the folder as one of phantoms. Fail if it has other cases of the same names, as real data sets do."""
    mark = dest / MARK
    taken = [name for name in (*names, FOLDER_LAYOUT) if (dest / name).exists()]
    if taken and not mark.exists():
        raise InputError(
            f"{dest}: has files that `ccsd phantom` did not write and would replace, for example {taken[0]}; choose "
            "another folder"
        )
    make_folder(dest)
    write_text(mark, "Made by `ccsd phantom`; it may replace the cases here.\n")


def _write_layout(dest: Path, task: Task) -> None:
    """Write the layout file for a task other than the default one: names of files and meaning of label numbers."""
    path = dest / FOLDER_LAYOUT
    if _is_default(task):
        remove(path)
        return
    files = {name: f"{{case}}_{name}" for name in (*task.sequences, "seg")}
    files[SEGMENTATION] = files.pop("seg")
    values = {
        "name": "phantom",
        **({"tasks": [task.name]} if is_shipped(task) else {}),
        "numbering": task.default_convention.name,
        "case": "(?P<patient>Phantom-[0-9]{5,})-[01]",
        "files": files,
    }
    write_text(path, yaml.safe_dump(values, sort_keys=False))


def _write_case(
    dest: Path, name: str, images: dict[str, NDArray[np.int16]], label: NDArray[np.uint8], task: Task
) -> None:
    new_naming = name.startswith("BraTS-GLI")
    suffixes = _SUFFIXES_2023 if new_naming else {key: f"_{key}" for key in (*images, "seg")}
    convention = task.convention("brats2020") if name.startswith("BraTS20") else task.default_convention
    volumes = {**images, "seg": labels.to_convention(label, convention).astype(np.int16)}
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = label.shape[1] - 1  # as BraTS places its volumes
    with complete_or_absent(dest / name) as folder:
        folder.mkdir()
        for key, volume in volumes.items():
            nifti.write(folder / f"{name}{suffixes[key]}.nii.gz", volume, affine)


def _is_default(task: Task) -> bool:
    return task.digest == default_task().digest and task.numbering == default_task().numbering


def _brats_name(index: int) -> str:
    number = index // 2
    if index % 2 == 0:
        return f"BraTS20_Training_{number + 1:03d}"
    if _is_follow_up(index):
        return f"BraTS-GLI-{number - 1:05d}-001"
    return f"BraTS-GLI-{number:05d}-000"


def _own_name(index: int) -> str:
    return f"Phantom-{_head(index) + 1:05d}-{int(_is_follow_up(index))}"


def _head(index: int) -> int:
    """Return the first case of the same patient."""
    return index - 2 if _is_follow_up(index) else index


def _is_follow_up(index: int) -> bool:
    return index % 2 == 1 and (index // 2) % _FOLLOW_UP_EVERY == _FOLLOW_UP_EVERY - 1


def _check(cases: int, shape: Shape, seed: int, difficulty: float) -> None:
    if cases < 1:
        raise InputError(f"phantom cases: {cases}; give at least 1")
    if min(shape) < _SMALLEST:
        raise InputError(f"phantom size: {min(shape)}; give at least {_SMALLEST} voxels; smaller tumours have no parts")
    if max(shape) > LARGEST:
        raise InputError(f"phantom size: {max(shape)}; give at most {LARGEST} voxels")
    if seed < 0:
        raise InputError(f"phantom seed: {seed}; give 0 or more")
    if not 0 <= difficulty <= 1:
        raise InputError(f"phantom difficulty: {difficulty}; give a number from 0 (easy) to 1 (hard)")

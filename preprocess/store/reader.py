"""Opening the store of a case and reading boxes from it."""

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from preprocess.errors import InputError
from preprocess.files import check_case_name
from preprocess.source.geometry import Box
from preprocess.store.meta import LAYOUT_VERSION, CaseMeta
from preprocess.store.shard import Copy, ShardArray, read_json

ATTRIBUTE, IMAGE, LABEL = "ccsd", "image", "label"
SUFFIX = ".zarr"


class CaseStore:
    """A case on disk. The lists of chunks are read together with the first voxels; no file stays open.

    Attributes
    ----------
    case
        Name of the case.
    meta
        Its attributes.
    copy
        Fills its first argument with its second, converted from float16; a faster function than NumPy's may be given.

    Raises
    ------
    InputError
        If there is no store of the case below `root`, or its attributes cannot be read.
    """

    def __init__(self, root: Path, case: str, copy: Copy = np.copyto) -> None:
        self.root, self.case, self.copy = root, case, copy
        self._path = store_path(root, case)
        if not self._path.is_dir():
            raise InputError(f"{case}: no store {self._path}; create it with `ccsd convert`")
        self.meta = self._read_meta()

    def __reduce__(self) -> tuple[type["CaseStore"], tuple[Path, str, Copy]]:
        return CaseStore, (self.root, self.case, self.copy)

    @property
    def shape(self) -> tuple[int, int, int]:
        """D, H, W of the cropped arrays."""
        d, h, w = (last - first for first, last in self.meta.geometry.box)
        return d, h, w

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of the case, in canonical order."""
        return self.meta.modalities

    @property
    def has_label(self) -> bool:
        """Whether there is a segmentation."""
        return (self._path / LABEL).is_dir()

    def read(
        self, modalities: Sequence[str], box: Box | None = None, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return z-scores of some modalities, 0 outside the brain; the others are not touched.

        Parameters
        ----------
        modalities
            Names, in the order wanted.
        box
            Slices with start and stop within `shape`; by default everything.
        out
            float32 array of the result's shape to fill; reusing a buffer saves much of the time.

        Returns
        -------
        ndarray
            float32, modalities x d x h x w.

        Raises
        ------
        InputError
            If the case lacks a modality, or a chunk is missing or damaged.
        """
        box = self._box(box)
        wanted = self._positions(modalities)
        image = self._image  # opened first: memory is allocated only for what exists
        if out is None:
            out = np.empty((len(modalities), *(part.stop - part.start for part in box)), np.float32)
        image.read(zip(wanted, out, strict=True), box)
        return out

    def read_channels(
        self, modalities: Iterable[str], box: Box | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return M x d x h x w, one channel per sequence of the task; unnamed ones are 0. Otherwise as `read`."""
        box, count = self._box(box), len(self.meta.task.modalities)
        wanted = sorted(self._positions(set(modalities)))
        image = self._image
        if out is None:
            out = np.empty((count, *(part.stop - part.start for part in box)), np.float32)
        for position in set(range(count)).difference(wanted):
            out[position] = 0
        image.read([(position, out[position]) for position in wanted], box)
        return out

    def read_label(self, box: Box | None = None, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return the classes of the task as uint8, d x h x w; `box` and `out` as in `read`.

        Raises
        ------
        InputError
            If there is no segmentation, or its chunk is missing or damaged.
        """
        box = self._box(box)
        label = self._label
        if out is None:
            out = np.empty(tuple(part.stop - part.start for part in box), np.uint8)
        label.read([(None, out)], box)
        return out

    def read_plane(self, modality: str, index: int) -> NDArray[np.float32]:
        """Return the H x W z-scores of one axial slice of a modality."""
        _, height, width = self.shape
        box = slice(index, index + 1), slice(0, height), slice(0, width)
        plane: NDArray[np.float32] = self.read((modality,), box)[0, 0]
        return plane

    def _positions(self, modalities: Collection[str]) -> list[int]:
        """Return the positions of modalities, which the case must have, along the leading axis."""
        if absent := [m for m in modalities if m not in self.modalities]:
            raise InputError(f"{self.case}: no {', '.join(absent)}; it has {', '.join(self.modalities)}")
        return [self.meta.task.modalities.index(name) for name in modalities]

    @cached_property
    def _image(self) -> ShardArray:
        return self._open(IMAGE, (len(self.meta.task.sequences), *self.shape), np.float16)

    @cached_property
    def _label(self) -> ShardArray:
        if not self.has_label:
            raise InputError(f"{self.case}: it was converted without a segmentation")
        return self._open(LABEL, self.shape, np.uint8)

    def _open(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> ShardArray:
        array = ShardArray(self._path / name, f"{self._path}, array {name}", dtype, self.copy)
        if array.shape != shape:
            raise InputError(f"{self._path}, array {name}: shape {array.shape}, but its crop box has {shape}")
        return array

    def _box(self, box: Box | None) -> Box:
        d, h, w = self.shape
        box = box or (slice(0, d), slice(0, h), slice(0, w))
        if not all(0 <= part.start < part.stop <= size for part, size in zip(box, self.shape, strict=True)):
            raise ValueError(f"{self.case}: box {box} is not within the shape {self.shape}")
        return box

    def _read_meta(self) -> CaseMeta:
        values = read_json(self._path / "zarr.json", str(self._path))
        try:
            attributes = values["attributes"][ATTRIBUTE]
            if (version := attributes["layout_version"]) != LAYOUT_VERSION:
                raise InputError(
                    f"{self._path}: written by another version (layout {version}, this one reads {LAYOUT_VERSION}); "
                    "run `ccsd convert`, or the workflow, again: it replaces the store"
                )
            return CaseMeta.model_validate(attributes)
        except (KeyError, TypeError, ValidationError) as error:
            raise InputError(
                f"{self._path}: the attributes do not match this version ({_reason(error)}); "
                "remove the store and run `ccsd convert` again"
            ) from None


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return repr(error)
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def store_path(root: Path, case: str) -> Path:
    """Return the path of a case's store below `root`.

    Raises
    ------
    InputError
        If the name is not a valid case name.
    """
    check_case_name(case, root)
    return root / f"{case}{SUFFIX}"


def list_cases(root: Path) -> list[str]:
    """Return the names of the cases below `root`, sorted.

    Raises
    ------
    InputError
        If the folder does not exist.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; create it with `ccsd convert SRC {root}`")
    return sorted(p.name[: -len(SUFFIX)] for p in root.iterdir() if p.name.endswith(SUFFIX) and p.name[0] != ".")

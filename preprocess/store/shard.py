"""Direct reading of the one-shard Zarr v3 arrays that `preprocess.store.write` writes.

Any Zarr library opens the same files. This reader exists for speed and safety: it maps the shard into memory, decodes
a chunk straight into a buffer that is used again, checks each chunk's CRC-32C once per process, and treats a chunk that
is missing or damaged as an error, where the format's rule is to return zeros. It starts no threads and holds no locks,
so it is safe to fork.
"""

import json
import mmap
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from preprocess.errors import InputError
from preprocess.source.geometry import Box

blosc.use_threads = False  # threads of a C library do not survive a fork

_ABSENT = 2**64 - 1
_CRC_BYTES = 4
_ENTRY_BYTES = 16
_AXES = 3

Copy = Callable[[NDArray[Any], NDArray[Any]], object]
_local = threading.local()
_verified: set[tuple[int, int, int, int]] = set()


@dataclass(frozen=True)
class _Layout:
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(-(-size // part) for size, part in zip(self.shape, self.chunk, strict=True))


class ShardArray:
    """One array of a case: chunks of whole planes along the third last axis, all in one shard.

    Parameters
    ----------
    folder
        The array's folder, with `zarr.json` and one shard.
    where
        How messages name the array.
    dtype
        Type that it must have.
    copy
        Fills its first argument with its second, converted to the type of the first.
    """

    def __init__(self, folder: Path, where: str, dtype: type[np.generic], copy: Copy) -> None:
        self._where, self._copy = where, copy
        self._layout = _read_layout(folder, where, np.dtype(dtype))
        self._path = folder / ".".join(["c", *("0" for _ in self._layout.shape)])
        self._map, self._identity = _open_map(self._path, where)
        self._index = self._read_index()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self._layout.shape

    def read(self, lead: int | None, box: Box, out: NDArray[Any]) -> None:
        """Fill `out` with a box of the array, converted to its type.

        Parameters
        ----------
        lead
            Position on the leading axis, None when there are only three axes.
        box
            Slices within the array's last three axes.
        out
            Array of the box's shape; it need not be contiguous.

        Raises
        ------
        InputError
            If a chunk is missing or damaged.
        """
        depth, height, width = self._layout.chunk[-3:]
        rows, columns, lines = box
        for slab in range(rows.start // depth, -(-rows.stop // depth)):
            first, last = max(rows.start, slab * depth), min(rows.stop, (slab + 1) * depth)
            number = slab if lead is None else lead * self._layout.grid[-3] + slab
            plane = self._decode(number, first - slab * depth, last - slab * depth).reshape(-1, height, width)
            self._copy(out[first - rows.start : last - rows.start], plane[:, columns, lines])

    def _decode(self, number: int, first: int, last: int) -> NDArray[Any]:
        """Return planes `first` to `last` of a chunk in this thread's scratch buffer."""
        encoded = self._encoded(number)
        plane = prod(self._layout.chunk[-2:])
        dtype = self._layout.dtype
        scratch = _scratch(prod(self._layout.chunk) * dtype.itemsize)
        try:
            blosc.decompress(encoded, scratch)
        except (RuntimeError, ValueError) as error:
            raise self._damaged(number, f"it cannot be decoded ({error})") from None
        return scratch.view(dtype)[first * plane : last * plane]

    def _encoded(self, number: int) -> NDArray[np.uint8]:
        """Return the compressed bytes of a chunk, after comparing them with their checksum once per process."""
        offset, size = self._index[number]
        if offset == _ABSENT:
            raise self._damaged(number, "the chunk is missing")
        data = np.frombuffer(self._map, np.uint8, size - _CRC_BYTES, offset)
        key = (*self._identity, number)
        if key not in _verified:
            start = offset - offset % mmap.ALLOCATIONGRANULARITY
            self._map.madvise(mmap.MADV_WILLNEED, start, offset + size - start)
            stored = int.from_bytes(self._map[offset + size - _CRC_BYTES : offset + size], "little")
            if google_crc32c.value(data) != stored:
                raise self._damaged(number, "its checksum is wrong")
            _verified.add(key)
        return data

    def _read_index(self) -> list[tuple[int, int]]:
        size = prod(self._layout.grid) * _ENTRY_BYTES
        tail = self._map[-size - _CRC_BYTES :]
        if len(tail) != size + _CRC_BYTES or google_crc32c.value(tail[:size]) != int.from_bytes(tail[size:], "little"):
            raise InputError(f"{self._where}: damaged or truncated, the list of chunks at its end is wrong. {_ADVICE}")
        entries = np.frombuffer(tail[:size], "<u8").reshape(-1, 2)
        return [(int(offset), int(length)) for offset, length in entries]

    def _damaged(self, number: int, reason: str) -> InputError:
        chunk = ".".join(str(int(i)) for i in np.unravel_index(number, self._layout.grid))
        return InputError(f"{self._where}, chunk {chunk}: damaged, {reason}. {_ADVICE}")


_ADVICE = "Remove the case's store and run `ccsd convert`, or the workflow, again"


def read_json(path: Path, where: str) -> dict[str, Any]:
    """Read a metadata file.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{where}: {path.name} is missing. {_ADVICE}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: {path.name} cannot be read ({error}). {_ADVICE}") from None
    if not isinstance(values, dict):
        raise InputError(f"{where}: {path.name} is damaged. {_ADVICE}")
    return values


def _read_layout(folder: Path, where: str, dtype: np.dtype[Any]) -> _Layout:
    """Read an array's metadata and refuse what this reader does not decode."""
    meta = read_json(folder / "zarr.json", where)
    try:
        (codec,) = meta["codecs"]
        shard = codec["configuration"]
        names = [inner["name"] for inner in shard["codecs"]]
        layout = _Layout(tuple(meta["shape"]), tuple(shard["chunk_shape"]), dtype)
        outer = tuple(meta["chunk_grid"]["configuration"]["chunk_shape"])
        known = meta["data_type"] == dtype.name and len(layout.chunk) == len(layout.shape) >= _AXES
        known &= codec["name"] == "sharding_indexed" and names == ["bytes", "blosc", "crc32c"]
        known &= shard["index_location"] == "end" and all(a >= b for a, b in zip(outer, layout.shape, strict=True))
        known &= layout.chunk[-2:] == layout.shape[-2:] and set(layout.chunk[:-3]) <= {1}
        known &= meta["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
    except (LookupError, TypeError, ValueError):
        known = False
    if not known:
        raise InputError(f"{where}: not an array that `ccsd convert` writes. {_ADVICE}")
    return layout


def _open_map(path: Path, where: str) -> tuple[mmap.mmap, tuple[int, int, int]]:
    try:
        with path.open("rb") as handle:
            state = os.fstat(handle.fileno())
            identity = state.st_dev, state.st_ino, state.st_mtime_ns
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ), identity
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise InputError(f"{where}: {path.name} is missing or empty ({error}). {_ADVICE}") from None


def _scratch(size: int) -> NDArray[np.uint8]:
    """Return this thread's buffer of `size` bytes; its contents last until the next call."""
    buffer: NDArray[np.uint8] | None = getattr(_local, "buffer", None)
    if buffer is None or buffer.size < size:
        buffer = _local.buffer = np.empty(size, np.uint8)
    return buffer[:size]

"""Direct reading of the one-shard Zarr v3 arrays that `preprocess.store.write` writes.

Any Zarr library opens the same files. This reader exists for speed and safety. It reads and decodes chunks into reused
buffers, checks each chunk's CRC-32C once per process, and raises an error for a missing or damaged chunk, for which the
format would return zeros. Files are not memory-mapped: if the file server is lost or a file replaced, a read raises an
error, whereas mapped memory would crash the process. The reader starts no threads, holds no locks and keeps no file
open, so it is safe to fork.
"""

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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

blosc.use_threads = False  # threads of the C library do not survive a fork

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
        Name of the array in messages.
    dtype
        Type that the array must have.
    copy
        Fills its first argument with its second, converted to the type of the first.
    """

    def __init__(self, folder: Path, where: str, dtype: type[np.generic], copy: Copy) -> None:
        self._where, self._copy = where, copy
        self._layout = _read_layout(folder, where, np.dtype(dtype))
        self._path = folder / ".".join(["c", *("0" for _ in self._layout.shape)])
        with _opened(self._path, where) as file:
            self._state = os.fstat(file)
            self._index = self._read_index(file)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self._layout.shape

    def read(self, wanted: Iterable[tuple[int | None, NDArray[Any]]], box: Box) -> None:
        """Fill arrays with a box of this one, converted to their type; the file is opened once.

        Parameters
        ----------
        wanted
            Positions on the leading axis (None if there are only three axes), each with an array of the box's shape to
            fill, which need not be contiguous.
        box
            Slices within the array's last three axes.

        Raises
        ------
        InputError
            If the file cannot be read or was replaced, or a chunk is missing or damaged.
        """
        with _opened(self._path, self._where) as file:
            state = os.fstat(file)
            if (state.st_size, state.st_mtime_ns) != (self._state.st_size, self._state.st_mtime_ns):
                raise InputError(f"{self._where}: {self._path.name} was replaced while in use. Run the command again")
            for lead, out in wanted:
                self._fill(file, lead, box, out)

    def _fill(self, file: int, lead: int | None, box: Box, out: NDArray[Any]) -> None:
        depth, height, width = self._layout.chunk[-3:]
        rows, columns, lines = box
        for slab in range(rows.start // depth, -(-rows.stop // depth)):
            first, last = max(rows.start, slab * depth), min(rows.stop, (slab + 1) * depth)
            number = slab if lead is None else lead * self._layout.grid[-3] + slab
            plane = self._decode(file, number, first - slab * depth, last - slab * depth).reshape(-1, height, width)
            self._copy(out[first - rows.start : last - rows.start], plane[:, columns, lines])

    def _decode(self, file: int, number: int, first: int, last: int) -> NDArray[Any]:
        """Return planes `first` to `last` of a chunk in this thread's scratch buffer."""
        encoded = self._encoded(file, number)
        plane = prod(self._layout.chunk[-2:])
        dtype = self._layout.dtype
        scratch = _scratch("decoded", prod(self._layout.chunk) * dtype.itemsize)
        try:
            blosc.decompress(encoded, scratch)
        except (RuntimeError, ValueError) as error:
            raise self._damaged(number, f"it cannot be decoded ({error})") from None
        return scratch.view(dtype)[first * plane : last * plane]

    def _encoded(self, file: int, number: int) -> NDArray[np.uint8]:
        """Return the compressed bytes of a chunk, after comparing them with their checksum once per process."""
        offset, size = self._index[number]
        if offset == _ABSENT:
            raise self._damaged(number, "the chunk is missing")
        if size <= _CRC_BYTES or offset + size > self._state.st_size:
            raise self._damaged(number, "it is outside the file")
        buffer = _scratch("encoded", size)
        self._read(file, buffer, offset)
        data = buffer[:-_CRC_BYTES]
        key = self._state.st_dev, self._state.st_ino, self._state.st_mtime_ns, number
        if key not in _verified:
            if google_crc32c.value(data) != int.from_bytes(buffer[-_CRC_BYTES:].tobytes(), "little"):
                raise self._damaged(number, "its checksum is wrong")
            _verified.add(key)
        return data

    def _read_index(self, file: int) -> list[tuple[int, int]]:
        size = prod(self._layout.grid) * _ENTRY_BYTES
        tail = np.empty(size + _CRC_BYTES, np.uint8)
        known = self._state.st_size >= len(tail)
        if known:
            self._read(file, tail, self._state.st_size - len(tail))
            known = google_crc32c.value(tail[:size]) == int.from_bytes(tail[size:].tobytes(), "little")
        if not known:
            raise InputError(f"{self._where}: damaged or truncated: the list of chunks at its end is wrong. {_ADVICE}")
        entries = tail[:size].view("<u8").reshape(-1, 2)
        return [(int(offset), int(length)) for offset, length in entries]

    def _read(self, file: int, buffer: NDArray[np.uint8], offset: int) -> None:
        """Fill a buffer from a place in the file."""
        view = buffer.data
        while view:
            if not (count := os.preadv(file, [view], offset)):
                raise InputError(f"{self._where}: {self._path.name} ends too early. {_ADVICE}")
            view, offset = view[count:], offset + count

    def _damaged(self, number: int, reason: str) -> InputError:
        chunk = ".".join(str(int(i)) for i in np.unravel_index(number, self._layout.grid))
        return InputError(f"{self._where}, chunk {chunk}: damaged: {reason}. {_ADVICE}")


_ADVICE = "Remove the case's store and run `ccsd convert`, or the workflow, again"
_RETRY = "Run the command again when the file system responds"


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
    """Read an array's metadata and reject what this reader cannot decode."""
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
        raise InputError(f"{where}: not an array written by `ccsd convert`. {_ADVICE}")
    return layout


@contextmanager
def _opened(path: Path, where: str) -> Iterator[int]:
    """Open a file; file system errors here or within the block become errors that name the file."""
    file = None
    try:
        file = os.open(path, os.O_RDONLY)
        yield file
    except OSError as error:
        advice = _ADVICE if isinstance(error, FileNotFoundError) else _RETRY
        raise InputError(f"{where}: {path.name} cannot be read ({error.strerror or error}). {advice}") from None
    finally:
        if file is not None:
            os.close(file)


def _scratch(name: str, size: int) -> NDArray[np.uint8]:
    """Return this thread's named buffer of `size` bytes; its contents are valid until the next call."""
    buffer: NDArray[np.uint8] | None = getattr(_local, name, None)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, np.uint8)
        setattr(_local, name, buffer)
    return buffer[:size]

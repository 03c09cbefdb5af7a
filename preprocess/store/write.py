"""The store of a case: one conformant Zarr v3 group of five files, written under a temporary name and then renamed.

`image` is M x D x H x W float16, M the sequences of the task, with one chunk per modality (slabs for volumes above
16 MiB). All chunks are in one shard, so that one file holds a case's images but one modality can be read without the
others. `label` is D x H x W uint8. LZ4 compresses the background; CRC-32C detects damage.
"""

from pathlib import Path
from typing import Any

import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec

from preprocess.case import Prepared
from preprocess.files import complete_or_absent
from preprocess.store.reader import ATTRIBUTE, IMAGE, LABEL, store_path

_CHUNK_BYTES = 16 << 20
_IMAGE_AXES = ("modality", "z", "y", "x")


def write_case(root: Path, prepared: Prepared) -> Path:
    """Write a case's store below `root` and return its path; an older store of the case is replaced."""
    path = store_path(root, prepared.meta.case)
    attributes = {ATTRIBUTE: prepared.meta.model_dump(mode="json", exclude_none=True)}
    with complete_or_absent(path) as temporary, zarr.config.set({"array.write_empty_chunks": True}):
        group = zarr.create_group(temporary, zarr_format=3, attributes=attributes)
        _write_array(group, IMAGE, prepared.z, (1, *_slab(prepared.z.shape[1:])), _IMAGE_AXES)
        if prepared.label is not None:
            _write_array(group, LABEL, prepared.label, prepared.label.shape, _IMAGE_AXES[1:])
    return path


def _slab(shape: tuple[int, ...]) -> tuple[int, int, int]:
    depth, height, width = shape
    rows = max(1, _CHUNK_BYTES // (height * width * 2))
    return min(depth, rows), height, width


def _write_array(
    group: zarr.Group, name: str, array: NDArray[Any], chunk: tuple[int, ...], axes: tuple[str, ...]
) -> None:
    shard = tuple(-(-size // part) * part for size, part in zip(array.shape, chunk, strict=True))
    codec = ShardingCodec(
        chunk_shape=chunk,
        codecs=[
            BytesCodec(),
            BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle", typesize=array.dtype.itemsize),
            Crc32cCodec(),
        ],
    )
    target = group.create_array(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=shard,
        serializer=codec,
        compressors=None,
        filters=None,
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=axes,
    )
    target[...] = array

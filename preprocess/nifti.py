"""Reading and writing NIfTI files: fast inflating, and one clear message for a file that is not what it should be."""

import gzip
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from zlib_ng import gzip_ng, zlib_ng

from preprocess.errors import InputError

SUFFIXES = (".nii.gz", ".nii")
_NIFTI2_HEADER = 540
_DAMAGED: tuple[type[Exception], ...] = (EOFError, OSError, zlib_ng.error)  # type: ignore[assignment] # the stub is wrong
_LEVEL = 1  # higher levels save a few per cent of noise and cost several times as long


@dataclass(frozen=True)
class Volume:
    """Contents of a NIfTI file.

    Attributes
    ----------
    array
        Voxels in the file's axes (first axis fastest in memory), in the stored type unless the header scales them.
    affine
        4 x 4, from voxel indices to millimetres, R A S.
    placed
        False when the header holds no position (both form codes are 0), so that the affine is a guess.
    sha256
        Digest of the file as it is on the disk.
    """

    array: NDArray[np.generic]
    affine: NDArray[np.float64]
    placed: bool
    sha256: str


def read(path: Path) -> Volume:
    """Read a `.nii` or `.nii.gz` file whole.

    Raises
    ------
    InputError
        If it cannot be read, is truncated or damaged, or is not NIfTI.
    """
    raw = _read_bytes(path)
    data = _inflate(raw, path) if raw[:2] == b"\x1f\x8b" else raw
    header = _header(data, path)
    return Volume(
        array=_voxels(data, header, path),
        affine=np.asarray(header.get_best_affine(), np.float64),
        placed=bool(int(header["sform_code"]) or int(header["qform_code"])),
        sha256=sha256(raw).hexdigest(),
    )


def write(
    path: Path, array: NDArray[np.generic], affine: NDArray[np.float64], *, compressed: bool | None = None
) -> None:
    """Write voxels as NIfTI-1, gzipped by default when the name ends in .gz; the same input gives the same bytes."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    data = image.to_bytes()
    path.write_bytes(
        gzip.compress(data, _LEVEL, mtime=0)
        if (path.name.endswith(".gz") if compressed is None else compressed)
        else data
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _inflate(raw: bytes, path: Path) -> bytes:
    try:
        return bytes(gzip_ng.decompress(raw))
    except _DAMAGED as error:
        raise InputError(f"{path}: truncated or damaged gzip file ({error}); copy or download it again") from None


def _header(data: bytes, path: Path) -> nib.Nifti1Header:
    try:
        sizeof = {int.from_bytes(data[:4], order) for order in ("little", "big")}
        kind = nib.Nifti2Header if _NIFTI2_HEADER in sizeof else nib.Nifti1Header
        header: nib.Nifti1Header = kind.from_fileobj(BytesIO(data[: kind.sizeof_hdr]))
        header.get_data_dtype()
    except Exception as error:  # noqa: BLE001 - nibabel raises many kinds for what is one problem here
        size = "an empty file" if not data else f"{len(data)} bytes, {error}"
        raise InputError(f"{path}: not a NIfTI file ({size}); expected .nii or .nii.gz") from None
    if bytes(header["magic"]).rstrip(b"\0")[:3] not in (b"n+1", b"n+2"):
        raise InputError(f"{path}: header and voxels in two files (.hdr, .img) are not supported; convert to .nii.gz")
    return header


def _voxels(data: bytes, header: nib.Nifti1Header, path: Path) -> NDArray[np.generic]:
    shape = header.get_data_shape()
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or not shape:
        raise InputError(f"{path}: holds {dtype} voxels of shape {shape}; expected whole or real numbers on a grid")
    offset = header.get_data_offset()
    missing = offset + int(np.prod(shape)) * dtype.itemsize - len(data)
    if missing > 0:
        raise InputError(f"{path}: truncated, {missing} bytes of voxels are missing; copy or download it again")
    flat = np.frombuffer(data, dtype, int(np.prod(shape)), offset)
    array = flat.reshape(shape, order="F")
    slope, inter = header.get_slope_inter()
    if (slope, inter) in ((None, None), (1.0, 0.0)):
        return array if dtype.isnative else array.astype(dtype.newbyteorder("="))
    return array.astype(np.float32) * np.float32(slope or 1) + np.float32(inter or 0)

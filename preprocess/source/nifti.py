"""Reading and writing NIfTI files: fast inflating, and one clear message for a file that is not what it should be."""

import gzip
import logging
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from math import prod
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from zlib_ng import gzip_ng, zlib_ng

from preprocess.errors import InputError

SUFFIXES = (".nii.gz", ".nii")
_NIFTI2_HEADER = 540
_DAMAGED: tuple[type[Exception], ...] = (EOFError, OSError, zlib_ng.error)  # type: ignore[assignment] # the stub is wrong
_LARGEST = 4 << 30  # bytes of voxels; a file of a few kilobytes can declare any size, and gzip can fill it
_SLACK = 1 << 20  # bytes that may follow the voxels
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # its remarks on headers name no file; ours do
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


@dataclass(frozen=True)
class _Header:
    """What is needed of a header; offset and size in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int
    affine: NDArray[np.float64]
    placed: bool
    slope: float | None
    inter: float | None

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def read(path: Path) -> Volume:
    """Read a `.nii` or `.nii.gz` file whole.

    Raises
    ------
    InputError
        If it cannot be read, is truncated or damaged, is not NIfTI, or declares more than 4 GiB of voxels.
    """
    raw = _read_bytes(path)
    if raw[:2] == b"\x1f\x8b":
        header, data = _inflate(raw, path)
    else:
        header, data = _header(raw, path), raw
    return Volume(_voxels(data, header, path), header.affine, header.placed, sha256(raw).hexdigest())


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
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a file")  # a pipe or a device may have no end
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _inflate(raw: bytes, path: Path) -> tuple[_Header, bytes]:
    """Inflate no more than the header declares."""
    try:
        with gzip_ng.open(BytesIO(raw)) as stream:
            header = _header(stream.read(_NIFTI2_HEADER), path)
            stream.seek(0)
            most = header.offset + header.size + _SLACK
            data = bytes(stream.read(most + 1))
    except _DAMAGED as error:
        raise InputError(f"{path}: truncated or damaged gzip file ({error}); copy or download it again") from None
    if len(data) > most:
        raise InputError(f"{path}: holds far more than the {header.size} bytes of voxels that its header declares")
    return header, data


def _header(data: bytes, path: Path) -> _Header:
    try:
        header = _parsed(data)
    except Exception as error:  # noqa: BLE001 - nibabel raises many kinds for what is one problem here
        size = "an empty file" if not data else f"{len(data)} bytes, {error}"
        raise InputError(f"{path}: not a NIfTI file ({size}); expected .nii or .nii.gz") from None
    if bytes(header["magic"]).rstrip(b"\0")[:3] not in (b"n+1", b"n+2"):
        raise InputError(f"{path}: header and voxels in two files (.hdr, .img) are not supported; convert to .nii.gz")
    try:
        with np.errstate(all="ignore"):  # the affine may hold any number; the checks of the grid judge it
            slope, inter = header.get_slope_inter()
            found = _Header(
                shape=tuple(int(side) for side in header.get_data_shape()),
                dtype=header.get_data_dtype(),
                offset=int(header.get_data_offset()),
                affine=np.asarray(header.get_best_affine(), np.float64),
                placed=bool(int(header["sform_code"]) or int(header["qform_code"])),
                slope=slope,
                inter=inter,
            )
    except (ArithmeticError, HeaderDataError, ValueError) as error:
        raise InputError(f"{path}: wrong header ({error}); correct it or write the file again") from None
    return _checked(found, path)


def _parsed(data: bytes) -> nib.Nifti1Header:
    sizeof = {int.from_bytes(data[:4], order) for order in ("little", "big")}
    kind = nib.Nifti2Header if _NIFTI2_HEADER in sizeof else nib.Nifti1Header
    header: nib.Nifti1Header = kind.from_fileobj(BytesIO(data[: kind.sizeof_hdr]))
    header.get_data_dtype()
    return header


def _checked(header: _Header, path: Path) -> _Header:
    """Refuse what no volume of this program can be, before anything is allocated for it."""
    if header.dtype.kind not in "iuf" or not header.shape or min(header.shape) < 1:
        raise InputError(
            f"{path}: holds {header.dtype} voxels of shape {header.shape}; expected whole or real numbers on a grid"
        )
    if header.size > _LARGEST:
        raise InputError(
            f"{path}: declares voxels of shape {header.shape}, {header.size / 2**30:.3g} GiB; at most "
            f"{_LARGEST >> 30} GiB are read. If that is not its shape, the header is damaged"
        )
    if not 0 <= header.offset <= _LARGEST:
        raise InputError(f"{path}: wrong header (voxels begin at {header.offset}); correct it or write the file again")
    return header


def _voxels(data: bytes, header: _Header, path: Path) -> NDArray[np.generic]:
    missing = header.offset + header.size - len(data)
    if missing > 0:
        raise InputError(f"{path}: truncated, {missing} bytes of voxels are missing; copy or download it again")
    flat = np.frombuffer(data, header.dtype, prod(header.shape), header.offset)
    array = flat.reshape(header.shape, order="F")
    if (header.slope, header.inter) in ((None, None), (1.0, 0.0)):
        return array if header.dtype.isnative else array.astype(header.dtype.newbyteorder("="))
    with np.errstate(all="ignore"):  # what is not finite is found with the voxels
        return array.astype(np.float32) * np.float32(header.slope or 1) + np.float32(header.inter or 0)

"""Reading and writing NIfTI files: fast decompression, and one clear message for a file that is not as it should be."""

import gzip
import logging
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from zlib_ng import gzip_ng, zlib_ng

from preprocess.errors import InputError

SUFFIXES = (".nii.gz", ".nii")
OTHER_SUFFIXES = (
    ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mnc", ".hdr", ".img", ".dcm", ".ima",
    ".nii.bz2", ".nii.xz", ".nii.zst", ".zip", ".tar", ".tgz", ".tar.gz", ".7z",
)  # fmt: skip
"""Image files that are not read: MetaImage (BraTS 2012 to 2016), NRRD, FreeSurfer, MINC, Analyze, DICOM; NIfTI with
other compression, and archives."""
_GZIP = b"\x1f\x8b"
_DEFLATE_RATIO = 1032  # most bytes that one compressed byte can expand to
_DAMAGED: tuple[type[Exception], ...] = (EOFError, OSError, zlib_ng.error)  # type: ignore[assignment] # the stub is wrong
_SLACK = 1 << 20  # bytes that may follow the voxels
_FARTHEST_MM = 1e6
_LEVEL = 1  # higher levels save a few per cent of noise and cost several times as long
logging.getLogger("nibabel.global").setLevel(
    logging.CRITICAL
)  # its warnings about headers do not name the file; ours do


@dataclass(frozen=True)
class Forms:
    """The two affines of a header, and a code for what each refers to; 0 if unset.

    Attributes
    ----------
    sform, qform
        4 x 4, from voxel indices to millimetres, R A S; None if the code is 0. The sform takes precedence.
    """

    sform: NDArray[np.float64] | None
    qform: NDArray[np.float64] | None
    sform_code: int = 0
    qform_code: int = 0

    @classmethod
    def same(cls, affine: NDArray[np.float64]) -> "Forms":
        """Return the forms to write if there is no input to take them from."""
        return cls(affine, affine, 1, 1)

    @classmethod
    def of(cls, header: nib.Nifti1Header) -> "Forms":
        """Return the forms of a header; an invalid qform, with which no file could be written, is left out."""
        sform, sform_code = header.get_sform(coded=True)
        qform, qform_code = header.get_qform(coded=True)
        if qform is not None and not (np.abs(qform) < _FARTHEST_MM).all():  # False for NaN, too
            qform, qform_code = None, 0
        return cls(sform, qform, int(sform_code), int(qform_code))


@dataclass(frozen=True)
class Volume:
    """Contents of a NIfTI file.

    Attributes
    ----------
    array
        Voxels in the file's axes (first axis fastest in memory), in the stored type unless the header scales them.
    affine
        4 x 4, from voxel indices to millimetres, R A S.
    forms
        Where the affine comes from; if both codes are 0, it is a guess.
    sha256
        Digest of the file as it is on disk.
    """

    array: NDArray[np.generic]
    affine: NDArray[np.float64]
    forms: Forms
    sha256: str


def stem(path: Path) -> str | None:
    """Return a file's name without its suffix; None if the suffix is not one of NIfTI."""
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)
    return path.name[: -len(suffix)] if suffix else None


def is_other_format(path: Path) -> bool:
    """Return whether a file name belongs to an image in a format that is not read."""
    return path.name.lower().endswith(OTHER_SUFFIXES)


def read(path: Path) -> Volume:
    """Read a whole `.nii` or `.nii.gz` file, decompressing no more than its header declares.

    Raises
    ------
    InputError
        If it cannot be read, is truncated or damaged, or is not NIfTI.
    """
    raw = _read_bytes(path)
    packed = raw[:2] == _GZIP
    try:
        with gzip_ng.open(BytesIO(raw)) if packed else BytesIO(raw) as stream:
            header = _header(stream.read(nib.Nifti2Header.sizeof_hdr), path)
            size = prod(header.get_data_shape()) * header.get_data_dtype().itemsize
            offset = header.get_data_offset()
            if offset + size > len(raw) * _DEFLATE_RATIO:  # before memory is allocated for it
                raise InputError(f"{path}: truncated or damaged: its header declares voxels up to byte {offset + size}")
            stream.seek(offset)
            data = stream.read(size) if packed else memoryview(raw)[offset : offset + size]
            rest = len(stream.read(_SLACK + 1))  # this also verifies the checksum
    except _DAMAGED as error:
        raise InputError(f"{path}: truncated or damaged gzip file ({error}); copy or download it again") from None
    if missing := size - len(data):
        raise InputError(f"{path}: truncated, {missing} bytes of voxels are missing; copy or download it again")
    if packed and rest > _SLACK:
        raise InputError(f"{path}: contains far more than the {size} bytes of voxels that its header declares")
    with np.errstate(all="ignore"):
        forms = Forms.of(header)
    return Volume(_voxels(data, header), header.get_best_affine(), forms, sha256(raw).hexdigest())


def write(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64], forms: Forms | None = None) -> None:
    """Write voxels as NIfTI-1, gzipped if the name ends in .gz; the same input gives the same bytes.

    `forms` are those of the input on whose grid the voxels are; without them both forms are the affine.
    """
    forms = forms or Forms.same(affine)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine if forms.qform is None else forms.qform, code=forms.qform_code)
    image.set_sform(affine if forms.sform is None else forms.sform, code=forms.sform_code)
    data = image.to_bytes()
    path.write_bytes(gzip.compress(data, _LEVEL, mtime=0) if path.suffix.lower() == ".gz" else data)


def _read_bytes(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a file")  # a pipe or a device may have no end
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _header(data: bytes, path: Path) -> nib.Nifti1Header:
    """Return the header of a volume that this program can use; its affine may contain any number."""
    longer = any(int.from_bytes(data[:4], order) == nib.Nifti2Header.sizeof_hdr for order in ("little", "big"))
    kind: Any = nib.Nifti2Header if longer else nib.Nifti1Header
    try:
        with np.errstate(all="ignore"):
            header: nib.Nifti1Header = kind(data[: kind.sizeof_hdr])
            shape, dtype = header.get_data_shape(), header.get_data_dtype()
            _ = header.get_best_affine(), header.get_slope_inter(), header.get_data_offset(), Forms.of(header)
    except Exception as error:  # noqa: BLE001 - nibabel raises many kinds for what is one problem here
        reason = f"{len(data)} bytes, {error}" if data else "an empty file"
        raise InputError(f"{path}: not a NIfTI file ({reason}); expected .nii or .nii.gz") from None
    if bytes(header["magic"]).rstrip(b"\0")[:3] not in (b"n+1", b"n+2"):
        raise InputError(f"{path}: header and voxels in two files (.hdr, .img) are not supported; convert to .nii.gz")
    if dtype.kind not in "iuf" or not shape or min(shape) < 1:
        raise InputError(f"{path}: contains {dtype} voxels of shape {shape}; expected whole or real numbers on a grid")
    return header


def _voxels(data: bytes | memoryview, header: nib.Nifti1Header) -> NDArray[np.generic]:
    """Return the voxels of a file on its grid."""
    array = np.frombuffer(data, header.get_data_dtype()).reshape(header.get_data_shape(), order="F")
    return scaled(array, *header.get_slope_inter())


def scaled(array: NDArray[Any], slope: float | None, inter: float | None) -> NDArray[Any]:
    """Return stored values as they are, in the machine's byte order, or scaled in float32 if a header requests it."""
    if (slope, inter) in ((None, None), (1.0, 0.0)):
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    with np.errstate(all="ignore"):  # values that are not finite are found later
        return array.astype(np.float32) * np.float32(slope or 1) + np.float32(inter or 0)

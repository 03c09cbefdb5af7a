"""Damaged and absurd NIfTI files: read, or refused with one clear message, in bounded memory."""

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from preprocess.audit import audit
from preprocess.case import prepare
from preprocess.convert import convert
from preprocess.errors import InputError
from preprocess.source import nifti
from preprocess.source.layouts import discover

Attempt = Callable[[Callable[[], Any], str], tuple[Any, str]]
Rng = np.random.Generator
NAMES = ("flair", "t1", "t1ce", "t2", "seg")
HEADER = nib.Nifti1Header.template_dtype
HEADER_2 = nib.Nifti2Header.template_dtype
ODD_FLOATS = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-38, 1e38, 3.4e38, 0.5)
ODD_WHOLES = (0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 127, 128, 255, 256, 511, 512, 768, 1024, 1280, 1536, 1792, 2048,
              2304, 32767, -32768)  # fmt: skip


def flip_bits(data: bytes, rng: Rng, first: int = 0, last: int | None = None) -> bytes:
    changed = bytearray(data)
    last = len(data) if last is None else min(last, len(data))
    for place in rng.integers(first, last, rng.integers(1, 6)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncate(data: bytes, rng: Rng) -> bytes:
    """Cut within the header, at its end, within the voxels, or a few bytes before the end."""
    ends = (rng.integers(0, 20), rng.integers(0, 360), 348, 352, 540, rng.integers(len(data)), len(data) - 1)
    return data[: int(rng.choice(ends))]


def odd_fields(data: bytes, rng: Rng) -> bytes:
    """Put odd numbers into one to three fields of the header."""
    kind = HEADER_2 if data[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else HEADER
    kind = kind.newbyteorder(">") if data[0] == 0 else kind
    header = np.frombuffer(data, kind, 1).copy()
    for name in rng.choice(kind.names, rng.integers(1, 4)):
        field = header[name]
        if field.dtype.kind == "S":
            header[name] = rng.bytes(field.dtype.itemsize)
            continue
        flat = field.reshape(-1)
        choices = ODD_FLOATS if field.dtype.kind == "f" else [n for n in ODD_WHOLES if _fits(n, field.dtype)]
        flat[rng.integers(flat.size)] = rng.choice(choices)
        header[name] = flat.reshape(field.shape)
    return header.tobytes() + data[header.nbytes :]


def _fits(number: int, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return limits.min <= number <= limits.max


def scaled_oddly(data: bytes, rng: Rng) -> bytes:
    header = nib.Nifti1Header(data[:348], check=False)
    header["scl_slope"], header["scl_inter"] = rng.choice(ODD_FLOATS, 2)
    return header.binaryblock + data[348:]


def placed_oddly(data: bytes, rng: Rng) -> bytes:
    """Give the volume an absurd affine, as qform or as sform."""
    header = nib.Nifti1Header(data[:348], check=False)
    header["sform_code"], header["qform_code"] = rng.integers(0, 2, 2)
    for name in ("srow_x", "srow_y", "srow_z"):
        header[name] = rng.choice([*ODD_FLOATS, *rng.normal(size=8)], 4)
    header["pixdim"] = rng.choice(ODD_FLOATS, 8)
    for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x"):
        header[name] = rng.choice([*ODD_FLOATS, 0.3, 0.7])
    return header.binaryblock + data[348:]


def declared_huge(data: bytes, rng: Rng) -> bytes:
    header = np.frombuffer(data, HEADER, 1).copy()
    number = int(rng.integers(1, 8))
    header["dim"][0, : number + 1] = [number, *rng.choice([32767, -32767, 30000, 0, 1], number)]
    return header.tobytes() + data[348:]


def other_type(data: bytes, rng: Rng) -> bytes:
    """Write the same kind of volume with other axes and voxel types: complex, RGB, 5-D, big-endian, NIfTI-2."""
    shape = tuple(int(n) for n in rng.integers(1, 6, rng.integers(1, 8)))
    types = [
        "c8",
        "c16",
        "u1",
        "i1",
        ">i2",
        "u2",
        "i4",
        "u4",
        "i8",
        "u8",
        "f4",
        ">f8",
        [("R", "u1"), ("G", "u1"), ("B", "u1")],
    ]
    dtype = np.dtype(types[rng.integers(len(types))])
    array = np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
    order = ">" if dtype.byteorder == ">" else "<"
    kind = nib.Nifti2Image if rng.integers(2) else nib.Nifti1Image
    with np.errstate(all="ignore"):
        return kind(array, np.eye(4), kind.header_class(endianness=order), dtype=dtype).to_bytes()


PLAIN: dict[str, Callable[[bytes, Rng], bytes]] = {
    "bits of the header": lambda data, rng: flip_bits(data, rng, 0, 352),
    "bits anywhere": flip_bits,
    "truncated": truncate,
    "odd fields": odd_fields,
    "scaling": scaled_oddly,
    "affine": placed_oddly,
    "declared huge": declared_huge,
    "type": other_type,
    "noise": lambda _, rng: rng.bytes(int(rng.integers(0, 2000))),
    "header, then noise": lambda data, rng: data[:352] + rng.bytes(int(rng.integers(0, 2000))),
}
PACKED: dict[str, Callable[[bytes, Rng], bytes]] = {
    "gzip bits": flip_bits,
    "gzip truncated": truncate,
    "gzip trailing": lambda data, rng: data + rng.choice([b"\0" * 512, rng.bytes(100), data, data[:40]]),
    "gzip of gzip": lambda data, _: gzip.compress(data, 1),
}


def damaged(whole: bytes, rng: Rng) -> tuple[str, bytes]:
    """Return a damaged file and how it was damaged, about half of them gzipped."""
    kind = str(rng.choice([*PLAIN, *PACKED]))
    if kind in PACKED:
        return kind, PACKED[kind](gzip.compress(whole, 1), rng)
    data = PLAIN[kind](whole, rng)
    return kind, gzip.compress(data, 1) if rng.integers(2) else data


@pytest.fixture(scope="module")
def whole(cohort: Path) -> dict[str, bytes]:
    """Return the bytes of one case's files, not gzipped, by modality and `seg`."""
    case = next(files for files in discover(cohort) if files.case.startswith("BraTS20"))
    paths = {**case.images, "seg": case.label}
    return {name: gzip.decompress(path.read_bytes()) for name, path in paths.items()}


def test_a_damaged_file_is_read_or_refused(
    whole: dict[str, bytes], tmp_path: Path, tries: int, attempt: Attempt
) -> None:
    path = tmp_path / "case_t1.nii.gz"
    refused = 0
    for seed in range(20 * tries):
        kind, data = damaged(whole["t1"], np.random.default_rng(seed))
        path.write_bytes(data)
        volume, message = attempt(lambda: nifti.read(path), f"{kind}, seed {seed}")
        refused += bool(message)
        assert str(path) in message if message else volume.array.size > 0, f"{kind}, seed {seed}"
    assert refused > tries


def test_a_case_with_a_damaged_file_is_prepared_or_refused(
    whole: dict[str, bytes], tmp_path: Path, tries: int, attempt: Attempt
) -> None:
    """The same through every check, as conversion and prediction read a case."""
    refused = 0
    for seed in range(2 * tries):
        rng = np.random.default_rng([1, seed])
        name = str(rng.choice(NAMES))
        kind, data = damaged(whole[name], rng)
        what, allow = f"{kind} of {name}, seed {seed}", ALLOW if rng.integers(2) else ()
        write_case(tmp_path, {**whole, name: data})
        (files,) = discover(tmp_path)
        found, message = attempt(partial(prepare, files, allow=allow), what)
        refused += bool(message)
        assert files.case in message if message else np.isfinite(found.image).all(), what
    assert refused


ALLOW = ("affine", "mirrored", "not-finite", "duplicate")


def write_case(folder: Path, contents: dict[str, bytes]) -> None:
    (folder / "fuzzed").mkdir(exist_ok=True)
    for name, data in contents.items():
        (folder / "fuzzed" / f"fuzzed_{name}.nii.gz").write_bytes(data)


def test_damaged_cases_cost_no_other(whole: dict[str, bytes], cohort: Path, tmp_path: Path, tries: int) -> None:
    """Converting and auditing a folder of damaged cases among whole ones ends with a verdict on each."""
    for seed in range(tries // 2):
        rng = np.random.default_rng([2, seed])
        case = tmp_path / "src" / f"case{seed:04d}"
        case.mkdir(parents=True)
        victim = str(rng.choice(NAMES))
        for name, data in {**whole, victim: damaged(whole[victim], rng)[1]}.items():
            (case / f"{case.name}_{name}.nii.gz").write_bytes(data)
    (tmp_path / "src" / "good").symlink_to(next(p for p in sorted(cohort.iterdir()) if "GLI" in p.name))
    found = convert(tmp_path / "src", tmp_path / "dest")
    assert len(found.outcomes) == tries // 2 + 1
    assert [o.case for o in found.named("converted") if "GLI" in o.case]
    unforeseen = [outcome.message for outcome in found.outcomes if "unforeseen" in outcome.message]
    assert not unforeseen
    audits = audit(tmp_path / "src")
    assert {o.case for o in found.named("refused")} == {a.case for a in audits if a.verdict == "refused"}


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder_t1.nii").mkdir()
    os.mkfifo(tmp_path / "pipe_t1.nii")
    (tmp_path / "endless_t1.nii").symlink_to("/dev/zero")
    for name in ("folder", "pipe", "endless"):
        with pytest.raises(InputError, match="not a file"):
            nifti.read(tmp_path / f"{name}_t1.nii")


@pytest.mark.skipif("os.geteuid() == 0", reason="root reads everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"\0" * 400)
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        nifti.read(path)


MEASURE = """
import resource, sys
from pathlib import Path
from preprocess.source import nifti
from preprocess.errors import InputError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    nifti.read(Path(sys.argv[1]))
except InputError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(("declared", "megabytes"), [(32000, 1), (4, 600), (32000, 600)])
def test_a_small_file_cannot_fill_the_memory(tmp_path: Path, declared: int, megabytes: int) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((declared, declared, declared))
    header["magic"], header["vox_offset"] = b"n+1", 352
    path = tmp_path / "bomb_t1.nii.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    message, grown_mb = done.stdout.splitlines()
    assert str(path) in message
    assert int(grown_mb) < 100

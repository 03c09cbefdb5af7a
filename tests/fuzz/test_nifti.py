"""Damaged NIfTI files: read, or refused with one clear message, in bounded memory."""

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

from preprocess.case import prepare
from preprocess.errors import InputError
from preprocess.source import nifti
from preprocess.source.accounts import find_cases
from preprocess.source.layouts import discover

Attempt = Callable[[Callable[[], Any], str], tuple[Any, str]]
Rng = np.random.Generator
HEADER_BYTES = 352
ALLOW = ("affine", "mirrored", "not-finite", "duplicate")


def flip_bits(data: bytes, rng: Rng, last: int | None = None) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(0, last or len(data), rng.integers(1, 6)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def odd_fields(data: bytes, rng: Rng) -> bytes:
    """Put odd numbers into one to three fields of the header."""
    header = np.frombuffer(data, nib.Nifti1Header.template_dtype, 1).copy()
    for name in rng.choice(header.dtype.names, rng.integers(1, 4)):
        flat = header[name].reshape(-1)
        odd = (np.nan, np.inf, -1.0, 0.5, 3.4e38) if flat.dtype.kind == "f" else (0, 1, 2, 7, 127)
        flat[rng.integers(flat.size)] = rng.choice(odd) if flat.dtype.kind != "S" else rng.bytes(flat.dtype.itemsize)
        header[name] = flat.reshape(header[name].shape)
    return header.tobytes() + data[header.nbytes :]


UNSEEN: dict[str, Callable[[bytes, Rng], bytes]] = {
    "bits of the header": partial(flip_bits, last=HEADER_BYTES),
    "odd fields": odd_fields,
}
"""Damage that nothing in the file gives away."""
SEEN: dict[str, Callable[[bytes, Rng], bytes]] = {
    "truncated": lambda data, rng: data[: rng.integers(len(data))],
    "noise": lambda data, rng: data[:HEADER_BYTES] + rng.bytes(int(rng.integers(0, 2000))),
    "gzip bits": lambda data, rng: flip_bits(gzip.compress(data, 1), rng),
    "gzip truncated": lambda data, rng: (packed := gzip.compress(data, 1))[: rng.integers(len(packed))],
    "gzip trailing": lambda data, rng: gzip.compress(data, 1) + rng.bytes(100),
}


def test_random_damage(cohort: Path, tmp_path: Path, tries: int, attempt: Attempt) -> None:
    """A case with a damaged file is refused by name, or prepared without a voxel that is not finite.

    What a length or a checksum gives away is never read as other voxels.
    """
    case = next(files for files in discover(cohort) if files.layout == "brats2020")
    paths = {**case.images, "seg": case.label}
    (tmp_path / "fuzzed").mkdir()
    for name, path in paths.items():
        (tmp_path / "fuzzed" / f"fuzzed_{name}.nii").write_bytes(gzip.decompress(path.read_bytes()))
    (files,) = find_cases(tmp_path, labels="brats2020").cases
    expected = prepare(files).z
    refused = 0
    for seed in range(10 * tries):
        rng = np.random.default_rng(seed)
        path = files.paths[rng.integers(len(files.paths))]
        kind = str(rng.choice([*UNSEEN, *SEEN]))
        whole = path.read_bytes()
        path.write_bytes({**UNSEEN, **SEEN}[kind](whole, rng))
        allow = ALLOW if rng.integers(2) else ()
        found, message = attempt(partial(prepare, files, allow=allow), f"{kind} of {path.name}, seed {seed}")
        path.write_bytes(whole)
        refused += bool(message)
        if message:
            assert files.case in message
        else:
            assert np.isfinite(found.image).all(), seed
            assert kind in UNSEEN or np.array_equal(found.z, expected), (kind, seed)
    assert refused > 2 * tries


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder_t1.nii").mkdir()
    os.mkfifo(tmp_path / "pipe_t1.nii")
    (tmp_path / "endless_t1.nii").symlink_to("/dev/zero")
    for name in ("folder", "pipe", "endless"):
        with pytest.raises(InputError, match="not a file"):
            nifti.read(tmp_path / f"{name}_t1.nii")


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


@pytest.mark.parametrize(("declared", "megabytes"), [(32000, 1), (4, 300)])
def test_a_small_file_cannot_fill_the_memory(tmp_path: Path, declared: int, megabytes: int) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((declared, declared, declared))
    header["magic"], header["vox_offset"] = b"n+1", HEADER_BYTES
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

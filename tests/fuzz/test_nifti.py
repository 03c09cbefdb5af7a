"""Damaged NIfTI files: read, or rejected with one clear message."""

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from preprocess.case import prepare
from preprocess.source.accounts import find_cases
from preprocess.source.layouts import discover
from support.fuzzing import Rng, attempt, flip_bits
from support.tasks import GLIOMA

HEADER_BYTES = 352
ALLOW = ("affine", "mirrored", "not-finite", "placeholder")


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


def test_random_damage(cohort: Path, tmp_path: Path, tries: int) -> None:
    """A case with a damaged file is rejected by name, or prepared without a voxel that is not finite.

    What a length or a checksum gives away is never read as other voxels.
    """
    case = next(files for files in discover(cohort, task=GLIOMA) if files.layout == "brats2020")
    paths = {**case.images, "seg": case.label}
    (tmp_path / "fuzzed").mkdir()
    for name, path in paths.items():
        (tmp_path / "fuzzed" / f"fuzzed_{name}.nii").write_bytes(gzip.decompress(path.read_bytes()))
    (files,) = find_cases(tmp_path, labels="brats2020", task=GLIOMA).cases
    expected = prepare(files).z
    rejected = 0
    for seed in range(10 * tries):
        rng = np.random.default_rng(seed)
        path = files.paths[rng.integers(len(files.paths))]
        kind = str(rng.choice([*UNSEEN, *SEEN]))
        whole = path.read_bytes()
        path.write_bytes({**UNSEEN, **SEEN}[kind](whole, rng))
        allow = ALLOW if rng.integers(2) else ()
        found, message = attempt(partial(prepare, files, allow=allow), f"{kind} of {path.name}, seed {seed}")
        path.write_bytes(whole)
        rejected += bool(message)
        if message:
            assert files.case in message
        else:
            assert np.isfinite(found.image).all(), seed
            assert kind in UNSEEN or np.array_equal(found.z, expected), (kind, seed)
    assert rejected > 2 * tries

"""NIfTI files: the same results as nibabel, and one clear message for a damaged file."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from preprocess.errors import InputError
from preprocess.source import nifti
from preprocess.source.nifti import Forms

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "i4", "f4", "f8"])
def test_reads_what_nibabel_writes(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = tmp_path / f"a{suffix}"
    array = RNG.integers(0, 200, (5, 4, 3)).astype(dtype)
    affine = np.diag([-2.0, 1.0, 3.0, 1.0])
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    nib.save(nib.Nifti1Image(array, affine, header, dtype=dtype), path)
    volume = nifti.read(path)
    assert np.array_equal(volume.array, array)
    assert volume.array.dtype.isnative
    assert np.allclose(volume.affine, affine)
    assert volume.forms.sform is not None


def test_reads_nifti_2_and_scaling(tmp_path: Path) -> None:
    image = nib.Nifti2Image(np.linspace(-1, 1, 24).reshape(2, 3, 4), np.eye(4), dtype=np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    stored = nib.load(tmp_path / "a.nii.gz").get_fdata()
    assert np.allclose(nifti.read(tmp_path / "a.nii.gz").array, stored, atol=1e-6)


def test_nibabel_reads_what_we_write(tmp_path: Path) -> None:
    array = RNG.integers(-5, 500, (4, 5, 6)).astype(np.int16)
    affine = np.array([[-1.0, 0, 0, 5], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
    nifti.write(tmp_path / "a.nii.gz", array, affine)
    image = nib.load(tmp_path / "a.nii.gz")
    assert np.array_equal(image.dataobj, array)
    assert np.allclose(image.affine, affine)
    assert image.get_data_dtype() == np.int16


def test_no_position_in_the_header_is_told(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, tmp_path / "a.nii")
    assert nifti.read(tmp_path / "a.nii").forms == Forms(None, None)


def test_forms_and_codes_are_kept(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((2, 3, 4), np.uint8), None)
    image.set_sform(np.diag([-1.0, -1, 1, 1]), code=4)
    image.set_qform(np.diag([1.0, -1, 1, 1]), code=2)
    nib.save(image, tmp_path / "a.nii")
    volume = nifti.read(tmp_path / "a.nii")
    nifti.write(tmp_path / "b.nii.gz", volume.array, volume.affine, volume.forms)
    written = nib.load(tmp_path / "b.nii.gz").header
    for form in ("get_sform", "get_qform"):
        (affine, code), (expected, number) = (getattr(h, form)(coded=True) for h in (written, image.header))
        assert code == number
        assert np.allclose(affine, expected)


def test_a_qform_that_is_no_place_is_left_out(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((2, 3, 4), np.uint8), np.eye(4))
    image.set_qform(np.eye(4), code=1)
    image.header["qoffset_x"] = np.nan
    nib.save(image, tmp_path / "a.nii")
    forms = nifti.read(tmp_path / "a.nii").forms
    assert (forms.qform, forms.qform_code, forms.sform_code) == (None, 0, 2)


DAMAGE = {
    "truncated gzip": (lambda data: data[:-20], "truncated or damaged gzip"),
    "half of it": (lambda data: data[: len(data) // 2], "truncated or damaged gzip"),
    "bits flipped": (lambda data: data[:60] + bytes(b ^ 255 for b in data[60:90]) + data[90:], "damaged gzip"),
    "empty": (lambda _: b"", "an empty file"),
    "text": (lambda _: b"<html>404 not found</html>" * 30, "not a NIfTI file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_clear_message(tmp_path: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    path = tmp_path / "a.nii.gz"
    nifti.write(path, RNG.integers(0, 500, (8, 8, 8)).astype(np.int16), np.eye(4))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=message) as error:
        nifti.read(path)
    assert str(path) in str(error.value)


def test_truncated_voxels_without_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nifti.write(path, np.ones((8, 8, 8), np.int16), np.eye(4))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="10 bytes of voxels are missing"):
        nifti.read(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"b\.nii: cannot be read: No such file"):
        nifti.read(tmp_path / "b.nii")


def test_what_is_no_file_is_rejected(tmp_path: Path) -> None:
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

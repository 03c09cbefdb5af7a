"""From the store back to the source's voxels, in any orientation."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocess.convert import convert
from preprocess.errors import InputError
from preprocess.restore import restore_image, restore_label, write_restored
from preprocess.source import nifti
from preprocess.source.layouts import discover
from preprocess.store.reader import CaseStore
from support.tasks import GLIOMA

CASE = "BraTS20_Training_001"
CODES = ["RAS", "LPS", "LAS", "SPL", "ARI", "IPR"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(code=st.sampled_from(CODES), seed=st.integers(0, 99), shape=st.tuples(*[st.integers(8, 13)] * 3))
def test_voxels_come_back_in_their_place(
    write_case: Callable[..., Path], tmp_path: Path, code: str, seed: int, shape: tuple[int, int, int]
) -> None:
    matrix = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(code), shape)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.inv(matrix)[:3, :3]
    affine[:3, 3] = (7, -3, 2)
    src = write_case(shape=shape, affine=affine, seed=seed)
    convert(src, tmp_path / "dest", task=GLIOMA)
    store = CaseStore(tmp_path / "dest", CASE)
    (files,) = discover(src, task=GLIOMA)
    for name, path in files.images.items():
        source, back = nifti.read(path).array, restore_image(store, name)
        scale = store.meta.scales[name]
        assert back.dtype == source.dtype
        assert back.shape == source.shape
        assert np.array_equal(back == 0, source == 0) or np.abs(source[(back == 0) != (source == 0)]).max() <= 1
        assert (np.abs(back - source) <= 0.5 + 2**-10 * np.abs(source - scale.mean) + 1e-3 * scale.std).all()
    assert files.label is not None
    assert np.array_equal(restore_label(store), nifti.read(files.label).array)


def test_real_numbers_come_back(write_case: Callable[..., Path], tmp_path: Path) -> None:
    src = write_case()
    path = src / CASE / f"{CASE}_t1.nii.gz"
    volume = nifti.read(path)
    nifti.write(path, volume.array.astype(np.float32) / 7, volume.affine)
    convert(src, tmp_path / "dest", task=GLIOMA)
    store = CaseStore(tmp_path / "dest", CASE)
    back, source = restore_image(store, "t1"), nifti.read(path).array
    assert back.dtype == np.float32
    assert np.allclose(back, source, atol=2**-10 * np.abs(source - store.meta.scales["t1"].mean).max())


def test_files_lie_where_the_source_lies(write_case: Callable[..., Path], tmp_path: Path) -> None:
    src = write_case()
    convert(src, tmp_path / "dest", task=GLIOMA)
    paths = write_restored(tmp_path / "dest", CASE, tmp_path / "out")
    assert [path.name for path in paths] == [f"{CASE}_{m}.nii.gz" for m in ("flair", "t1", "t1ce", "t2", "seg")]
    for path in paths:
        source, back = nib.load(src / CASE / path.name), nib.load(path)
        assert np.allclose(source.affine, back.affine)
        assert source.shape == back.shape
    assert not list((tmp_path / "out").glob(".*"))


def test_only_what_is_named(write_case: Callable[..., Path], tmp_path: Path) -> None:
    convert(write_case(modalities=("t1", "t2")), tmp_path / "dest", task=GLIOMA)
    (path,) = write_restored(tmp_path / "dest", CASE, tmp_path / "out", ["t2"])
    assert path.name == f"{CASE}_t2.nii.gz"
    with pytest.raises(InputError, match="no flair; it has t1, t2"):
        write_restored(tmp_path / "dest", CASE, tmp_path / "out", ["flair"])
    with pytest.raises(InputError, match="nobody: no store"):
        write_restored(tmp_path / "dest", "nobody", tmp_path / "out")

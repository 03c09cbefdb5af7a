"""Small inputs for the tests of `preprocess`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from preprocess.source import nifti
from support.tasks import SEQUENCES

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
CaseWriter = Callable[..., Path]


@pytest.fixture
def write_case(tmp_path: Path, write_case_into: CaseWriter) -> CaseWriter:
    """A function that writes one case in the 2020 naming below `src`, which it returns."""
    return partial(write_case_into, tmp_path / "src")


@pytest.fixture(scope="session")
def write_case_into() -> CaseWriter:
    """A function that writes one case below a folder: random images with a margin of 0, and a label."""

    def write(
        source: Path,
        name: str = "BraTS20_Training_001",
        *,
        modalities: tuple[str, ...] = SEQUENCES,
        shape: tuple[int, int, int] = (12, 10, 8),
        affine: NDArray[np.float64] = LPS,
        label: NDArray[np.integer] | str | None = "default",
        seed: int = 0,
    ) -> Path:
        rng = np.random.default_rng(seed)
        folder = source / name
        folder.mkdir(parents=True, exist_ok=True)
        inner = tuple(slice(2, n - 1) for n in shape)
        for modality in modalities:
            volume = np.zeros(shape, np.int16)
            volume[inner] = rng.integers(-20, 1000, volume[inner].shape)
            nifti.write(folder / f"{name}_{modality}.nii.gz", volume, affine)
        if isinstance(label, str):
            label = np.zeros(shape, np.uint8)
            label[4:8, 4:8, 3:6] = rng.choice([1, 2, 4], (4, 4, 3))
        if label is not None:
            nifti.write(folder / f"{name}_seg.nii.gz", label, affine)
        return source

    return write

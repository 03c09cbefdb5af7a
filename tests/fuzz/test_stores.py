"""Damaged stores: one error that names the case, never a wrong number."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.store.reader import CaseStore, list_cases
from support.fuzzing import Rng, attempt, flip_bits
from support.tasks import SEQUENCES


def damaged(data: bytes, rng: Rng) -> bytes:
    """Cut a file short, flip bits of it, overwrite its end, where a shard has its index, or append to it."""
    kind = rng.integers(4)
    if kind == 0:
        return data[: rng.integers(len(data))]
    if kind == 1:
        return data + rng.bytes(int(rng.integers(1, 50)))
    if kind == 2:
        return data[: -int(rng.integers(1, 90))] + rng.bytes(20)
    return flip_bits(data, rng)


def read(root: Path, case: str) -> tuple[Any, Any]:
    store = CaseStore(root, case)
    return store.read(SEQUENCES), store.read_label()


def test_random_damage(data: Path, tmp_path: Path, tries: int) -> None:
    case = list_cases(data)[0]
    image, label = read(data, case)
    store = shutil.copytree(data / f"{case}.zarr", tmp_path / f"{case}.zarr")
    files = sorted(path for path in store.rglob("*") if path.is_file())
    for seed in range(10 * tries):
        rng = np.random.default_rng(seed)
        path = files[rng.integers(len(files))]
        whole = path.read_bytes()
        path.unlink()  # a new file: the old one may be mapped
        path.write_bytes(damaged(whole, rng))
        found, message = attempt(partial(read, tmp_path, case), f"{path.name}, seed {seed}")
        path.unlink()
        path.write_bytes(whole)
        if message:
            assert case in message
        else:
            assert np.array_equal(found[0], image), seed
            assert np.array_equal(found[1], label), seed

"""Damaged stores: metadata with keys missing, wrong types and sizes, and shards with flipped bits or cut short."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.convert import convert
from preprocess.dataset import read_metas
from preprocess.errors import InputError
from preprocess.modalities import MODALITIES
from preprocess.restore import restore_image, restore_label
from preprocess.store.reader import CaseStore, list_cases, open_case

Attempt = Callable[[Callable[[], Any], str], tuple[Any, str]]
Rng = np.random.Generator
METADATA = ("zarr.json", "image/zarr.json", "label/zarr.json")
SHARDS = ("image/c.0.0.0.0", "label/c.0.0.0")
ODD = (None, True, 0, -1, 3, 2**31, 2**63, 10**30, 0.5, 1e308, float("nan"), float("inf"), "", "x", "flair", "float16",
       "O", "V8", "../x", "a\tb\n", [], [1], [[]], [0, 0, 0], [10**9] * 3, {}, {"a": 1})  # fmt: skip


@pytest.fixture(scope="module")
def dest(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dest")
    convert(cohort, folder)
    return folder


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to everything in nested JSON; of long lists the first few."""
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 5)) if isinstance(value, list) else []
    return [path, *(place for key in keys for place in places(value[key], (*path, key)))]


def edited(text: str, rng: Rng) -> tuple[str, str]:
    """Return JSON with one to three values replaced or taken out, and what was done."""
    content, done = json.loads(text), []
    for _ in range(rng.integers(1, 4)):
        found = [place for place in places(content) if place]
        *above, key = found[rng.integers(len(found))]
        node = content
        for step in above:
            node = node[step]
        if rng.integers(4) == 0:
            del node[key]
            done.append(f"without {[*above, key]}")
        else:
            node[key] = ODD[rng.integers(len(ODD))]
            done.append(f"{[*above, key]} = {node[key]!r}")
        if not content:
            break
    return json.dumps(content), "; ".join(done)


def damage_bytes(data: bytes, rng: Rng) -> bytes:
    kind = rng.integers(4)
    if kind == 0:
        return data[: rng.integers(len(data))]
    changed = bytearray(data)
    if kind == 1:
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            changed[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:  # at the end lies the index of the chunks
        changed[-int(rng.integers(1, min(90, len(data)))) :] = rng.bytes(20)
    else:
        return bytes(changed) + rng.bytes(int(rng.integers(1, 50)))
    return bytes(changed)


def read_all(root: Path, case: str) -> None:
    """Read a case in every way that a stage does."""
    store = open_case(root, case)
    assert store.read(store.modalities).shape == (len(store.modalities), *store.shape)
    if store.has_label:
        assert store.read_label().max() < 256
        assert restore_label(store).shape == store.meta.geometry.shape
    restore_image(store, store.modalities[0])
    read_metas(root)


def read_arrays(store: CaseStore) -> tuple[Any, Any]:
    return store.read(MODALITIES), store.read_label()


def test_damaged_metadata(dest: Path, tmp_path: Path, tries: int, attempt: Attempt) -> None:
    case = list_cases(dest)[0]
    shutil.copytree(dest / f"{case}.zarr", tmp_path / f"{case}.zarr")
    whole = {name: (tmp_path / f"{case}.zarr" / name).read_text() for name in METADATA}
    refused = 0
    for seed in range(6 * tries):
        rng = np.random.default_rng(seed)
        name = METADATA[rng.integers(len(METADATA))]
        path = tmp_path / f"{case}.zarr" / name
        if rng.integers(4):
            text, what = edited(whole[name], rng)
            path.write_text(text)
        else:
            path.write_bytes(damage_bytes(whole[name].encode(), rng))
            what = "bytes"
        _, message = attempt(lambda: read_all(tmp_path, case), f"{name}, seed {seed}: {what}")
        assert case in message or not message
        refused += bool(message)
        path.write_text(whole[name])
    assert refused > 2 * tries
    read_all(tmp_path, case)


def test_damaged_shards(dest: Path, tmp_path: Path, tries: int, attempt: Attempt) -> None:
    """What is read although bytes were changed is what was written: the bytes were of no account."""
    case = list_cases(dest)[0]
    shutil.copytree(dest / f"{case}.zarr", tmp_path / f"{case}.zarr")
    store = open_case(dest, case)
    image, label = store.read(MODALITIES), store.read_label()
    for seed in range(5 * tries):
        rng = np.random.default_rng(seed)
        path = tmp_path / f"{case}.zarr" / SHARDS[rng.integers(2)]
        whole = path.read_bytes()
        path.unlink()  # a new file: the old one may be mapped
        path.write_bytes(damage_bytes(whole, rng))
        opened = open_case(tmp_path, case)
        found, message = attempt(partial(read_arrays, opened), f"{path.name}, seed {seed}")
        assert message or (np.array_equal(found[0], image) and np.array_equal(found[1], label))
        path.unlink()
        path.write_bytes(whole)


def test_metadata_nested_without_end(dest: Path, tmp_path: Path) -> None:
    case = list_cases(dest)[0]
    shutil.copytree(dest / f"{case}.zarr", tmp_path / f"{case}.zarr")
    (tmp_path / f"{case}.zarr" / "zarr.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match=r"zarr\.json cannot be read"):
        open_case(tmp_path, case)

"""The store: conformant Zarr, read back exactly, and damage that is never read as zeros."""

import errno
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocess.case import Prepared, prepare
from preprocess.errors import InputError
from preprocess.restore import write_restored
from preprocess.source.layouts import discover
from preprocess.splits import read_list
from preprocess.store import shard, write
from preprocess.store.meta import CaseMeta
from preprocess.store.reader import CaseStore, list_cases, store_path
from preprocess.store.write import write_case
from support.hostile import ESCAPES
from support.tasks import GLIOMA, SEQUENCES

CASE = "BraTS20_Training_001"
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def prepared(cohort: Path) -> Prepared:
    return prepare(next(files for files in discover(cohort, task=GLIOMA) if files.case == CASE))


@pytest.fixture
def opened(prepared: Prepared, tmp_path: Path) -> CaseStore:
    write_case(tmp_path, prepared)
    return CaseStore(tmp_path, CASE)


def test_reads_what_was_prepared(opened: CaseStore, prepared: Prepared) -> None:
    assert opened.modalities == SEQUENCES
    assert opened.shape == prepared.z.shape[1:]
    assert np.array_equal(opened.read(SEQUENCES), prepared.image)
    assert np.array_equal(opened.read_label(), prepared.label)
    assert opened.meta == prepared.meta


def test_zarr_reads_the_same_numbers(opened: CaseStore, tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / f"{CASE}.zarr", mode="r")
    assert np.array_equal(np.asarray(group["image"][:], np.float32), opened.read(SEQUENCES))
    assert np.array_equal(group["label"][:], opened.read_label())


def test_a_case_costs_five_files(opened: CaseStore, tmp_path: Path) -> None:
    entries = list((tmp_path / f"{CASE}.zarr").rglob("*"))
    assert sum(path.is_file() for path in entries) == 5
    assert len(entries) + 1 == 8


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.data())
def test_boxes_of_some_modalities(opened: CaseStore, prepared: Prepared, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(SEQUENCES), min_size=1, max_size=4, unique=True))
    ends = [data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)) for n in opened.shape]
    box = tuple(slice(*sorted(pair)) for pair in ends)
    rows = [SEQUENCES.index(name) for name in names]
    assert np.array_equal(opened.read(names, box), prepared.image[rows][(slice(None), *box)])
    assert np.array_equal(opened.read_label(box), prepared.label[box])


def test_slabs_of_a_large_volume(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, height, width = prepared.z.shape
    monkeypatch.setattr(write, "_CHUNK_BYTES", 3 * height * width * 2)
    write_case(tmp_path, prepared)
    opened = CaseStore(tmp_path, CASE)
    box = (slice(2, 11), slice(1, height), slice(0, width - 1))
    assert np.array_equal(opened.read(("t1ce",), box)[0], prepared.image[2][box])
    assert np.array_equal(opened.read(SEQUENCES), prepared.image)


def test_fills_a_strided_view(opened: CaseStore, prepared: Prepared) -> None:
    out = np.full((2, *opened.shape[:2], opened.shape[2] + 4), 9, np.float32)
    opened.read(("t1", "t2"), None, out[..., 2:-2])
    assert np.array_equal(out[..., 2:-2], prepared.image[[1, 3]])
    assert (out[..., :2] == 9).all()


def test_one_modality_does_not_touch_the_others(opened: CaseStore, tmp_path: Path) -> None:
    """The bytes of the other chunks are overwritten; the requested one can still be read."""
    path = tmp_path / f"{CASE}.zarr/image/c.0.0.0.0"
    expected = opened.read(("t2",))
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[-20:-12], "little")  # of the last of four chunks, in the index at the end
    data[:start] = b"\xff" * start
    _replace(path, bytes(data))
    damaged = CaseStore(tmp_path, CASE)
    assert np.array_equal(damaged.read(("t2",)), expected)
    with pytest.raises(InputError, match=r"chunk 0\.0\.0\.0"):
        damaged.read(("flair",))


def _replace(path: Path, data: bytes) -> None:
    """Replace a file with a new one: in a copy of a study the old one may be a hard link."""
    path.unlink()
    path.write_bytes(data)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    _replace(path, bytes(data))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a flipped bit": (_flip, r"array image, chunk \d\.0\.0\.0: damaged: its checksum is wrong"),
    "truncated": (lambda path: _replace(path, path.read_bytes()[:-50]), "array image: damaged or truncated"),
    "empty": (lambda path: _replace(path, b""), "array image: damaged or truncated"),
    "missing": (lambda path: path.unlink(), r"cannot be read \(No such file"),
    "zeros": (lambda path: _replace(path, bytes(path.stat().st_size)), "damaged or truncated"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_an_error_that_names_the_place(opened: CaseStore, tmp_path: Path, kind: str) -> None:
    damage, message = DAMAGES[kind]
    damage(tmp_path / f"{CASE}.zarr/image/c.0.0.0.0")
    with pytest.raises(InputError, match=message) as error:
        CaseStore(tmp_path, CASE).read(SEQUENCES)
    assert CASE in str(error.value)
    assert "ccsd convert" in str(error.value)


ACCIDENTS: dict[str, tuple[Damage, str]] = {
    "truncated in place": (lambda path: os.truncate(path, path.stat().st_size // 2), "was replaced while in use"),
    "replaced": (lambda path: _replace(path, path.read_bytes()[::-1] + b"more"), "was replaced while in use"),
    "removed": (lambda path: path.unlink(), r"cannot be read \(No such file"),
    "no longer a file": (lambda path: (path.unlink(), path.mkdir()), "was replaced while in use|cannot be read"),
}


@pytest.mark.parametrize("array", ["image", "label"])
@pytest.mark.parametrize("kind", ACCIDENTS)
def test_what_happens_to_a_file_between_two_reads_is_an_error_that_names_it(
    opened: CaseStore, tmp_path: Path, kind: str, array: str
) -> None:
    """With memory-mapped files, some of these would kill the process with a signal and no message."""
    accident, message = ACCIDENTS[kind]
    opened.read(SEQUENCES)
    opened.read_label()
    accident(next((tmp_path / f"{CASE}.zarr" / array).glob("c*")))
    with pytest.raises(InputError, match=f"{CASE}.zarr, array {array}: c.*({message})"):
        opened.read(SEQUENCES) if array == "image" else opened.read_label()


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE])
def test_a_lost_file_server_is_an_error_that_names_the_file(
    opened: CaseStore, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def lost(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "preadv", lost)
    with pytest.raises(InputError, match=rf"{CASE}.zarr, array image: c\.0.* \({os.strerror(error)}\)") as told:
        opened.read(SEQUENCES)
    assert "Remove" not in str(told.value)


def test_a_file_that_ends_while_it_is_read_is_an_error(opened: CaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.read(SEQUENCES)
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    with pytest.raises(InputError, match=f"{CASE}.zarr, array image: c.*ends too early"):
        opened.read(SEQUENCES)


def test_a_file_system_may_give_fewer_bytes_than_it_is_asked_for(
    opened: CaseStore, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, views, at: whole(file, [views[0][:1000]], at))
    assert np.array_equal(opened.read(SEQUENCES), prepared.image)


def test_no_file_stays_open(opened: CaseStore) -> None:
    opened.read(SEQUENCES)
    opened.read_label()
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [name for name in links if CASE in name]
    assert f"{CASE}.zarr" not in Path("/proc/self/maps").read_text()


def test_a_chunk_marked_as_missing_is_an_error_not_zeros(opened: CaseStore, tmp_path: Path) -> None:
    """A writer that skips empty chunks, or was killed, leaves this: valid Zarr, which other readers fill with 0."""
    path = tmp_path / f"{CASE}.zarr/image/c.0.0.0.0"
    data = path.read_bytes()
    index = data[-68:-20] + b"\xff" * 16  # the entry of the last of four chunks
    _replace(path, data[:-68] + index + google_crc32c.value(index).to_bytes(4, "little"))
    assert not zarr.open_group(tmp_path / f"{CASE}.zarr", mode="r")["image"][3].any()
    damaged = CaseStore(tmp_path, CASE)
    assert damaged.read(("t1",)).any()
    with pytest.raises(InputError, match=r"chunk 3\.0\.0\.0: damaged: the chunk is missing"):
        damaged.read(("t2",))


@pytest.mark.parametrize("name", ["zarr.json", "image/zarr.json", "label/zarr.json"])
@pytest.mark.parametrize("text", ["{", "{}", None])
def test_damaged_metadata_is_an_error(opened: CaseStore, tmp_path: Path, name: str, text: str | None) -> None:
    path = tmp_path / f"{CASE}.zarr" / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match=CASE):
        _read_all(tmp_path)


def _read_all(root: Path) -> None:
    opened = CaseStore(root, CASE)
    opened.read(SEQUENCES)
    opened.read_label()


def test_foreign_zarr_is_rejected(opened: CaseStore, tmp_path: Path) -> None:
    path = tmp_path / f"{CASE}.zarr/image/zarr.json"
    meta = json.loads(path.read_text())
    meta["codecs"][0]["configuration"]["codecs"].pop()
    path.write_text(json.dumps(meta))
    with pytest.raises(InputError, match="not an array written by `ccsd convert`"):
        CaseStore(tmp_path, CASE).read(("t1",))


def test_asking_for_what_is_not_there(prepared: Prepared, tmp_path: Path) -> None:
    part = replace(prepared, meta=prepared.meta.model_copy(update={"modalities": ("t1",)}), label=None)
    write_case(tmp_path, part)
    opened = CaseStore(tmp_path, CASE)
    assert not opened.has_label
    with pytest.raises(InputError, match="no t2; it has t1"):
        opened.read(("t1", "t2"))
    with pytest.raises(InputError, match="without a segmentation"):
        opened.read_label()
    with pytest.raises(ValueError, match="not within"):
        opened.read(("t1",), (slice(0, 99), slice(0, 1), slice(0, 1)))
    with pytest.raises(InputError, match="no store"):
        CaseStore(tmp_path, "nobody")


def test_attributes_there_and_back(prepared: Prepared) -> None:
    assert CaseMeta.model_validate_json(prepared.meta.model_dump_json()) == prepared.meta


def test_a_reader_loads_no_converter() -> None:
    code = "import preprocess.splits, preprocess.store.reader, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "preprocess.store.meta" in loaded
    assert not {"preprocess.case", "preprocess.checks", "preprocess.convert", "zarr"} & set(loaded)


def test_foreground_voxels_have_their_class(opened: CaseStore) -> None:
    label = opened.read_label().ravel()
    assert set(opened.meta.foreground) == {1, 2, 3}
    for number, voxels in opened.meta.foreground.items():
        assert 0 < len(voxels) <= 1000
        assert (label[list(voxels)] == number).all()


def test_each_chunk_is_checked_once(opened: CaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = shard.google_crc32c.value
    monkeypatch.setattr(shard.google_crc32c, "value", lambda data: calls.append(1) or plain(data))
    opened.read(("t1",))
    opened.read(("t1",))
    assert len(calls) == 2  # the index and one chunk


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_an_open_case_may_go_to_another_process(opened: CaseStore, method: str) -> None:
    """With readers that start threads this hangs or aborts."""
    expected = opened.read(SEQUENCES)
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap_async(CaseStore.read, [(opened, SEQUENCES)] * 4).get(timeout=120)
    assert all(np.array_equal(image, expected) for image in found)
    assert np.array_equal(pickle.loads(pickle.dumps(opened)).read(SEQUENCES), expected)


@pytest.mark.usefixtures("opened")
def test_list_cases_sees_complete_stores_only(tmp_path: Path) -> None:
    (tmp_path / ".tmp-1-x.zarr").mkdir()
    assert list_cases(tmp_path) == [CASE]
    with pytest.raises(InputError, match="no such folder"):
        list_cases(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ESCAPES, ids=ascii)
def test_a_case_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "split.tsv").write_text(f"case\tsplit\n{name}\ttrain\n", errors="surrogateescape")
    with pytest.raises(InputError):
        read_list(tmp_path / "split.tsv")
    for work in (store_path, CaseStore, lambda root, case: write_restored(root, case, root / "out")):
        with pytest.raises(InputError, match="cannot be the name of a case"):
            work(tmp_path, name)
    assert [path.name for path in tmp_path.iterdir()] == ["split.tsv"]

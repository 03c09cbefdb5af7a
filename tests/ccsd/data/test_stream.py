"""The stream: the same samples for any number of processes and workers, from any step on; no hangs, no leftovers."""

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ccsd.data import PatchReader, PatchStream, check_shared_memory, patches
from ccsd.data import stream as module
from ccsd.data.batch import Slots
from ccsd.errors import UsageError
from preprocess.errors import InputError
from preprocess.store import reader, shard
from preprocess.store.reader import CaseStore, list_cases
from support.tasks import GLIOMA

PATCH = (16, 20, 12)
Taken = list[tuple[Any, ...]]


def stream_of(
    data: Path,
    cases: list[str] | None = None,
    *,
    workers: int = 0,
    start: int = 0,
    context: Any = "forkserver",
    **changes: Any,
) -> PatchStream:
    plain = {
        "modalities": GLIOMA.modalities,
        "patch": PATCH,
        "global_batch": 4,
        "rank": 0,
        "world": 1,
        "seed": 3,
        "foreground": 0.5,
    }
    reader = PatchReader(data, list_cases(data) if cases is None else cases, **(plain | changes))
    return PatchStream(reader, workers=workers, start=start, context=context)


def take(data: Path, count: int = 5, **changes: Any) -> Taken:
    """Draw batches and copy what is in them, sample by sample."""
    with stream_of(data, **changes) as stream:
        return [
            (
                b.step,
                i,
                b.cases[k],
                b.corners[k],
                b.image[k].numpy().tobytes(),
                b.label[k].numpy().tobytes(),
                b.available[k],
            )
            for b in islice(stream, count)
            for k, i in enumerate(b.samples)
        ]


def same(first: Taken, second: Taken) -> bool:
    return len(first) == len(second) and all(
        a[:-1] == b[:-1] and torch.equal(a[-1], b[-1]) for a, b in zip(first, second, strict=True)
    )


def test_shapes_and_types(data: Path) -> None:
    batch = next(stream_of(data))
    assert batch.image.shape == (4, 4, *PATCH)
    assert batch.image.dtype == torch.float16
    assert batch.label.shape == (4, *PATCH)
    assert batch.label.dtype == torch.uint8
    assert batch.available.tolist() == [[True] * 4] * 4


def test_patches_are_what_the_store_holds(data: Path) -> None:
    batch = next(stream_of(data, patch=(40, 8, 8)))
    for k, (case, first) in enumerate(zip(batch.cases, batch.corners, strict=True)):
        opened = CaseStore(data, case)
        padded = np.pad(opened.read(GLIOMA.modalities), [(0, 0), *[(40, 40)] * 3])
        label = np.pad(opened.read_label(), [(40, 40)] * 3)
        box = tuple(slice(40 + c, 40 + c + n) for c, n in zip(first, (40, 8, 8), strict=True))
        assert np.array_equal(batch.image[k].numpy(), padded[(slice(None), *box)])
        assert np.array_equal(batch.label[k].numpy(), label[box])


def test_slots_do_not_remember_earlier_batches(data: Path) -> None:
    """A patch that sticks out of its case must be 0 there, whatever was in the memory before."""
    stream = stream_of(data, patch=(40, 40, 40))
    once = next(stream).image.clone()
    stream._slots.image.fill_(7)
    stream._slots.label.fill_(7)
    assert (next(stream).image == 0).float().mean() > 0.3
    fresh = next(stream_of(data, patch=(40, 40, 40)))
    assert torch.equal(fresh.image, once)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_see_together_what_one_sees(data: Path, world: int) -> None:
    alone = take(data)
    shared = [sample for rank in range(world) for sample in take(data, rank=rank, world=world)]
    assert same(alone, sorted(shared, key=lambda sample: sample[:2]))


def test_resuming_needs_only_the_step(data: Path) -> None:
    assert same(take(data, 6)[8:], take(data, 4, start=2))


def test_seeds_differ(data: Path) -> None:
    assert not same(take(data), take(data, seed=4))


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
def test_workers_give_the_same_in_the_same_order(data: Path, context: str) -> None:
    """The parent has read before it forks: readers that hold threads or locks hang here."""
    alone = take(data, 9)
    assert same(alone, take(data, 9, workers=2, context=context))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_slow_consumer_keeps_its_batch(data: Path) -> None:
    """Workers run ahead; the batch in use must not change under the consumer."""
    alone = take(data, 8)
    with stream_of(data, workers=2) as stream:
        for batch, expected in zip(stream, [alone[k : k + 4] for k in range(0, 32, 4)], strict=False):
            time.sleep(0.05)
            assert [image.numpy().tobytes() for image in batch.image] == [sample[4] for sample in expected]
            if batch.step == 7:
                break


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_closing_ends_the_workers(data: Path) -> None:
    before = children()
    stream = stream_of(data, workers=2, context="spawn")
    next(stream)
    assert len(children() - before) >= 2
    stream.close()
    deadline = time.monotonic() + 20
    while len(children() - before) > 1 and time.monotonic() < deadline:  # the resource tracker stays
        time.sleep(0.1)
    assert len(children() - before) <= 1
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_workers_outlive_a_schedulers_warning(data: Path) -> None:
    before = children()
    with stream_of(data, workers=2, context="spawn") as stream:
        assert [next(stream).step for _ in range(2)] == [0, 1], "both workers are up"
        for child in children() - before:
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGUSR2)
                os.kill(int(child), signal.SIGTERM)
        assert [batch.step for batch in islice(stream, 8)] == list(range(2, 10))


LEFT_OPEN = """
import os, sys
from pathlib import Path
from ccsd.data import PatchReader, PatchStream
from preprocess.store.reader import list_cases

if __name__ == "__main__":
    data = Path(sys.argv[1])
    names = ("flair", "t1", "t1ce", "t2")
    about = {"modalities": names, "patch": (8, 8, 8), "seed": 0, "foreground": 0.5}
    reader = PatchReader(data, list_cases(data), global_batch=2, rank=0, world=1, **about)
    stream = PatchStream(reader, workers=2)
    next(stream), next(stream)
    server = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    print(*(Path(f"/proc/{pid}/task/{pid}/children").read_text() for pid in server), flush=True)
    if sys.argv[2] == "raise":
        raise RuntimeError
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("end", ["return", "raise", "kill"])
def test_a_process_that_ends_takes_its_workers_along(data: Path, tmp_path: Path, end: str) -> None:
    script = tmp_path / "left_open.py"
    script.write_text(LEFT_OPEN)
    result = subprocess.run(
        [sys.executable, script, data, end],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
    )
    workers = result.stdout.split()
    assert len(workers) >= 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def damaged_copy(data: Path, dest: Path) -> Path:
    for case in list_cases(data):
        (dest / f"{case}.zarr").symlink_to(data / f"{case}.zarr")
    name = list_cases(data)[0]
    link = dest / f"{name}.zarr"
    link.unlink()
    for path in sorted((data / f"{name}.zarr").rglob("*")):
        target = link / path.relative_to(data / f"{name}.zarr")
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes()[: -9 if path.name == "c.0.0.0.0" else None])
    return dest


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_store_ends_it_with_its_message(data: Path, tmp_path: Path, workers: int) -> None:
    broken = damaged_copy(data, tmp_path)
    stream = stream_of(broken, workers=workers)
    with pytest.raises(InputError, match=f"{list_cases(data)[0]}.zarr, array image: damaged or truncated") as error:
        list(islice(stream, 12))
    assert "Traceback" not in str(error.value)


def test_a_training_case_without_label_is_named(unlabelled: Path) -> None:
    with pytest.raises(InputError, match="training cases without a segmentation: lonely"):
        stream_of(unlabelled, ["lonely"])


def test_no_case_and_unknown_case(data: Path) -> None:
    with pytest.raises(InputError, match="no case to train on"):
        stream_of(data, [])
    with pytest.raises(InputError, match="nobody: no store"):
        stream_of(data, ["nobody"])


def test_the_metadata_of_each_case_is_read_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases come in random order, and a metadata server has other users."""
    (tmp_path / "data").symlink_to(data)
    opened, cases = [], list_cases(data)
    reads = shard.read_json
    monkeypatch.setattr(shard, "read_json", lambda path, where: opened.append(path) or reads(path, where))
    monkeypatch.setattr(reader, "read_json", shard.read_json)
    taken = take(tmp_path / "data", count=4 * len(cases), checked=True)
    assert {sample[2] for sample in taken} == set(cases)
    assert len(opened) == 3 * len(cases)  # of the group, the image and the label


def test_cases_that_another_process_has_checked_are_not_opened(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = list_cases(data)
    monkeypatch.setattr(patches, "CaseStore", lambda *_: pytest.fail("a store was opened"))
    stream_of(data, cases, checked=True).close()
    with pytest.raises(pytest.fail.Exception):
        stream_of(data, cases)


def test_pinned_memory_is_all_that_batches_are_read_into(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: dict[int, int] = {}
    checked: list[int] = []
    register = SimpleNamespace(cudaHostRegister=lambda address, size, _: locked.update({address: size}) or 0)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: register)
    monkeypatch.setattr(torch.cuda, "check_error", checked.append)
    with stream_of(data) as stream:
        stream._slots.pin()
        batch = next(stream)
        assert locked == {tensor.data_ptr(): tensor.nbytes for tensor in (batch.image, batch.label)}
        assert checked == [0, 0]


def test_more_processes_than_samples(data: Path) -> None:
    with stream_of(data, global_batch=2, rank=2, world=3) as copy:  # has no sample of its own
        assert next(copy).samples == (0,)


def test_too_little_shared_memory_is_told_before_it_crashes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stream_of(data) as stream:
        reader = stream._reader
    needed = 2 * module._SLOTS_PER_WORKER * Slots.bytes_each(*module._shape(reader))
    state = os.statvfs("/")
    for free, processes in ((needed - 1, 1), (2 * needed - 1, 2)):
        fake = os.statvfs_result([1, 1, 0, 0, free, *state[5:]])
        monkeypatch.setattr(module.os, "statvfs", lambda _, fake=fake: fake)
        check_shared_memory(reader, 0, processes)
        check_shared_memory(reader, 2, processes - 1)
        with pytest.raises(UsageError, match=r"2 workers.* need \d+ MiB of shared memory"):
            check_shared_memory(reader, 2, processes)


def test_a_case_that_lacks_modalities(partial: Path) -> None:
    batch = next(stream_of(partial, global_batch=1))
    assert batch.available.tolist() == [[True, False, True, False]]
    assert not batch.image[0, [1, 3]].any()
    assert batch.image[0, [0, 2]].any()

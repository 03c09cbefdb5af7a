"""What a training asks of its machine."""

import gc
import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributed

from ccsd.device import explain_out_of_memory
from ccsd.errors import UsageError
from ccsd.training import distributed as processes
from ccsd.training import host
from ccsd.training.distributed import FIRST_STEP, Process, RankEnvironment

CUDA = torch.device("cuda", 0)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(name="NVIDIA X", total_memory=24 * 2**30, pci_domain_id=0, pci_bus_id=0x3B, pci_device_id=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 20 * 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 23 * 2**30)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("near", "own", "expected"),
    [
        ("0-15,32-47", range(64), {*range(16), *range(32, 48)}),
        ("0-15", range(8, 24), set(range(8, 16))),
        ("0-15", range(14, 30), None),  # two cores for three processes
        ("0-15", range(16, 32), None),
        ("", range(64), None),
    ],
)
def test_a_process_moves_to_the_cores_on_the_side_of_its_gpu(
    near: str, own: range, expected: set[int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(own))
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: moved.append(cores))
    folder = tmp_path / "0000:3b:00.0"
    folder.mkdir()
    (folder / "local_cpulist").write_text(near + "\n")
    host.move_near(CUDA, workers=2, devices=tmp_path)
    assert moved == ([] if expected is None else [expected])


@pytest.mark.usefixtures("card")
def test_without_the_systems_word_a_process_stays_where_it_is(tmp_path: Path) -> None:
    host.move_near(CUDA, workers=2, devices=tmp_path / "none")


@pytest.mark.parametrize("name", [None, "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_the_users_options_of_the_allocator_win(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in host.ALLOCATOR:
        monkeypatch.delenv(known, raising=False)
    if name:
        monkeypatch.setenv(name, "max_split_size_mb:64")
    host.join_gpu_memory()
    found = {known: os.environ[known] for known in host.ALLOCATOR if known in os.environ}
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    assert found == ({name: "max_split_size_mb:64"} if name else {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})


def test_garbage_is_collected_between_steps_alone_and_afterwards_as_before() -> None:
    with host.garbage_collected_by_hand():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("card")
def test_out_of_memory_is_one_message_with_the_peak_and_what_to_do() -> None:
    wanted = r"NVIDIA X has 24\.0 GiB; the peak was 20\.0 GiB in tensors, 23\.0 GiB reserved\. set it lower"
    with pytest.raises(UsageError, match=wanted), explain_out_of_memory(CUDA, "set it lower"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")


def test_gpus_wait_long_for_the_first_step_and_short_afterwards_in_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: dict[object, timedelta] = {}
    begun: list[timedelta] = []
    groups = {"world": None, "DeepSpeed's": None, "hosts": None}
    c10d = distributed.distributed_c10d
    monkeypatch.setattr(c10d, "_world", SimpleNamespace(pg_map=groups))
    monkeypatch.setattr(c10d, "_set_pg_timeout", lambda wait, group: waits.update({group: wait}))
    monkeypatch.setattr(distributed, "init_process_group", lambda *_, timeout, device_id: begun.append(timeout))
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    for module in (distributed.constants, c10d):
        for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
            monkeypatch.setattr(module, name, timedelta(0))
    processes._meet(RankEnvironment(0, 2), CUDA, 300, None)
    assert begun == [timedelta(seconds=300 * FIRST_STEP)]
    assert distributed.constants.default_pg_timeout == begun[0]
    Process(0, 2, CUDA, timeout=300).end_first_step()
    assert waits == dict.fromkeys(groups, timedelta(seconds=300))


def test_gpus_that_wait_too_long_write_into_the_folder_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_DUMP_ON_TIMEOUT", "TORCH_FR_DUMP_TEMP_FILE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    for module in (distributed.constants, distributed.distributed_c10d):
        for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
            monkeypatch.setattr(module, name, timedelta(0))
    processes._meet(RankEnvironment(1, 2), CUDA, 300, tmp_path / "run")
    assert os.environ["TORCH_FR_DUMP_TEMP_FILE"] == str(tmp_path / "run/nccl_trace_rank_")
    assert (tmp_path / "run").is_dir()
    assert os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "1"

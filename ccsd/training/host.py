"""Adapt the process to its machine: keep freed memory, use cores near the GPU, no garbage collection in a step."""

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

M_MMAP_THRESHOLD = -3
M_TRIM_THRESHOLD = -1
LARGEST = 2**30

PCI = Path("/sys/bus/pci/devices")
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def reuse_freed_memory() -> None:
    """Tell glibc's allocator to keep what tensors free instead of returning it to the system.

    A CPU training step allocates and frees the same activations again and again; returning them costs a page fault
    per 4 KiB each time. Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, LARGEST)


def join_gpu_memory() -> None:
    """Let torch extend blocks of GPU memory, which validation volumes of many sizes would otherwise fragment.

    This must happen before torch uses a GPU. Does nothing if the user has set allocator options.
    """
    if not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


def move_near(device: torch.device, workers: int, devices: Path = PCI) -> None:
    """Keep this process, and the workers that it starts, on those of its cores that are close to the GPU.

    Copies from the other socket's memory take a detour. Nothing changes if this would leave fewer cores than processes.
    """
    gpu: Any = torch.cuda.get_device_properties(device)  # torch's own types lack the address
    address = f"{gpu.pci_domain_id:04x}:{gpu.pci_bus_id:02x}:{gpu.pci_device_id:02x}.0"
    try:
        near = _cores((devices / address / "local_cpulist").read_text()) & os.sched_getaffinity(0)
    except (OSError, ValueError):
        return
    if len(near) > workers:
        os.sched_setaffinity(0, near)


def _cores(text: str) -> set[int]:
    """Read `0-15,32-47`."""
    cores: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores


@contextmanager
def garbage_collected_by_hand() -> Iterator[None]:
    """Keep Python's garbage collector from pausing one process in a step, for which all others would wait.

    `gc.collect` still works; call it between steps.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()

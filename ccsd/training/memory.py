"""Memory of this process: how much it took at its peak, and how the allocator treats what is freed."""

import ctypes
import resource
import sys

import torch

MIB = 2**20
M_MMAP_THRESHOLD = -3
M_TRIM_THRESHOLD = -1
LARGEST = 2**30


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory used so far in MiB: allocated on the GPU, or resident where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def reuse_freed_memory() -> None:
    """Tell glibc's allocator to keep what tensors free instead of returning it to the system.

    A CPU training step allocates and frees the same activations again and again; returning them costs a page fault
    per 4 KiB each time. Does nothing where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, LARGEST)

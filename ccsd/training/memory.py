"""Peak memory of this process."""

import resource
import sys

import torch

MIB = 2**20


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory used so far in MiB: allocated on the GPU, or resident where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB

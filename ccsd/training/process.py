"""One process among the others: rank, device, threads, process group.

The same program runs alone, under torchrun, srun or a job of `cluster`: rank and rendezvous come from the environment
(RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT); without them it is one process of its own.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch._C._distributed_c10d import HashStore

from ccsd.errors import UsageError
from ccsd.training.memory import reuse_freed_memory


@dataclass(frozen=True)
class Process:
    """Who this process is."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0

    def say(self, message: str) -> None:
        """Print a line, once for all processes."""
        if self.is_first:
            print(message, flush=True)

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over all processes; every process must call this."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set on any process; every process must call this."""
        return bool(self.sum(torch.tensor(float(flag), device=self.device)).item())

    def wait_for_all(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def joined() -> Iterator[Process]:
    """Join the process group that the environment describes, and leave it at the end."""
    _quieten_deepspeed()
    rank, world, local_rank = (_environment(name, default) for name, default in _VARIABLES.items())
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        reuse_freed_memory()
        if "OMP_NUM_THREADS" not in os.environ:
            local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_world))
    backend = "nccl" if device.type == "cuda" else "gloo"
    if world > 1:
        distributed.init_process_group(backend)
    else:
        distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield Process(rank, world, device)
    finally:
        distributed.destroy_process_group()


_VARIABLES = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}


def _environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"environment variable {name} is {text!r}; expected a whole number, or leave it unset"
        ) from None


def _quieten_deepspeed() -> None:
    """Keep DeepSpeed's information messages and its use of old torch names out of the user's log."""
    os.environ.setdefault("DS_LOG_LEVEL", "warning")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)

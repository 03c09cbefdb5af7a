"""One process among the others: rank, device, threads, process group.

The same program runs alone, under torchrun, srun or a job of `cluster` (ccsd.training.place).
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed
from torch._C._distributed_c10d import HashStore

from ccsd.errors import TrainingError, UsageError
from ccsd.training.memory import reuse_freed_memory
from ccsd.training.place import Place, from_srun, place, slurm_hosts

PATIENCE = "CCSD_PATIENCE_S"
"""Environment variable: how many seconds a process waits for another in one exchange; 600 without it."""


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

    def gather(self, word: str | None) -> list[str | None]:
        """Return every process's word, by rank; every process must call this."""
        words = [word] * self.world
        if self.world > 1:
            distributed.all_gather_object(words, word)
        return words

    def wait_for_all(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            distributed.barrier()


@contextmanager
def joined() -> Iterator[Process]:
    """Join the process group that the environment describes, and leave it at the end.

    Raises
    ------
    UsageError
        If the environment is contradictory.
    TrainingError
        If the others do not come, or one of them ends or is silent for longer than the patience.
    """
    _quieten_deepspeed()
    os.environ.update(from_srun(os.environ, slurm_hosts))
    here = place(os.environ)
    os.environ["LOCAL_RANK"] = str(here.local_rank)  # DeepSpeed insists on it, also for a process alone
    device = _device(here)
    patience = _patience()
    _meet(here, device, patience)
    process = Process(here.rank, here.world, device)
    try:
        yield process
    except RuntimeError as error:
        if not _is_lost_peer(error):
            raise
        raise TrainingError(
            f"process {here.rank} lost the others: one of them ended, or was silent for {patience:.0f} s. Its own "
            "message, above or in its log, says why. The same command carries on from the last checkpoint"
        ) from None
    finally:
        distributed.destroy_process_group()


def _device(here: Place) -> torch.device:
    if torch.cuda.is_available():
        device = torch.device("cuda", here.local_rank)
        torch.cuda.set_device(device)
        return device
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    reuse_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // here.local_world))
    return torch.device("cpu")


def _meet(here: Place, device: torch.device, patience: float) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    if here.world == 1:
        distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        return
    # DeepSpeed makes groups of its own, which would wait for torch's default time.
    distributed.constants.default_pg_timeout = distributed.distributed_c10d.default_pg_timeout = timedelta(
        seconds=patience
    )
    try:
        distributed.init_process_group(backend, timeout=timedelta(seconds=patience))
        distributed.barrier()
    except RuntimeError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise TrainingError(
            f"process {here.rank} of {here.world} could not meet the others at {where} within {patience:.0f} s "
            f"({str(error).splitlines()[0]}). Start all of them at the same time, with a port that is free"
        ) from None


def _patience() -> float:
    text = os.environ.get(PATIENCE, "600")
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"environment variable {PATIENCE} is {text!r}; expected seconds, or leave it unset") from None


def _is_lost_peer(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo" in str(error) or "NCCL" in str(error)


def _quieten_deepspeed() -> None:
    """Keep DeepSpeed's information messages and its use of old torch names out of the user's log."""
    os.environ.setdefault("DS_LOG_LEVEL", "warning")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)

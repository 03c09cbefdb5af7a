"""Set up one of the processes of a training: rank, device, threads, process group.

The same program runs alone, under torchrun, srun or a job of `cluster`. torchrun and the jobs of `cluster` set RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; a plain `srun` sets its own variables, from which they are derived.
Without any of them the process is alone.
"""

import logging
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, distributed
from torch._C._distributed_c10d import HashStore

from ccsd.device import choose_device
from ccsd.errors import TrainingError, UsageError, ending
from ccsd.training.host import join_gpu_memory, reuse_freed_memory
from cluster.rendezvous import PORTS
from preprocess.parallel import available_cpus

T = TypeVar("T")

PEER_TIMEOUT = "CCSD_PEER_TIMEOUT_S"
"""Environment variable: how many seconds a process waits for another in one exchange."""
PEER_TIMEOUTS = {"cpu": 600, "cuda": 300}
"""Defaults by device."""
FIRST_STEP = 6
"""Factor on the timeout for a GPU's first step, which compiles, tries kernels and reads from cold disks."""
NCCL_TRACE = "nccl_trace_rank_"
"""Prefix, before the rank, of the files in the run's folder with the last exchanges of each GPU before a timeout."""


@dataclass(frozen=True)
class RankEnvironment:
    """Rank of this process, number of processes, rank on this machine, number of processes on this machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def rank_environment(environment: Mapping[str, str]) -> RankEnvironment:
    """Read RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE.

    Raises
    ------
    UsageError
        If a variable is not a number, is missing although others are set, or contradicts them.
    """
    rank, world = _number(environment, "RANK", 0), _number(environment, "WORLD_SIZE", 1)
    if not 0 <= rank < world:
        raise UsageError(f"RANK is {rank} and WORLD_SIZE {world}; RANK must be below WORLD_SIZE, or leave both unset")
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if world > 1 and missing:
        raise UsageError(
            f"WORLD_SIZE is {world} but {', '.join(missing)} is not set; start the processes with torchrun, srun or "
            "`ccsd train --job`, or unset WORLD_SIZE to train with one process"
        )
    return RankEnvironment(
        rank, world, _number(environment, "LOCAL_RANK", 0), _number(environment, "LOCAL_WORLD_SIZE", world)
    )


def from_srun(environment: Mapping[str, str], hosts: Callable[[str], list[str]]) -> dict[str, str]:
    """Return the variables that torchrun would set for a task of a plain `srun`; empty if there is nothing to add.

    `hosts` expands SLURM's compressed list of nodes. The port is derived from the job and step, which all tasks know.
    Nothing is added in a terminal that `srun --pty` opened, because only one of its tasks runs the command.
    """
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS", 1)
    if tasks == 1 or "SLURM_PTY_PORT" in environment or "WORLD_SIZE" in environment or "RANK" in environment:
        return {}
    names = hosts(environment["SLURM_STEP_NODELIST"])
    salt = 16 * _number(environment, "SLURM_JOB_ID", 0) + _number(environment, "SLURM_STEP_ID", 0)
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(-(-tasks // len(names))),
        "MASTER_ADDR": environment.get("MASTER_ADDR", names[0]),
        "MASTER_PORT": environment.get("MASTER_PORT", str(PORTS[salt % len(PORTS)])),
    }


def slurm_hosts(nodes: str) -> list[str]:
    """Expand `node[1-3]` as SLURM does."""
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        raise UsageError(
            f"started by srun on {nodes}, but `{' '.join(command)}` does not work here; set MASTER_ADDR, MASTER_PORT, "
            "RANK, WORLD_SIZE and LOCAL_RANK yourself, or use `ccsd train --job cluster=slurm`"
        ) from None


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"environment variable {name} is {text!r}; expected a whole number, or leave it unset"
        ) from None


@dataclass(frozen=True)
class Process:
    """One process of a training, and its exchanges with the others."""

    rank: int
    world: int
    device: torch.device
    local_world: int = 1
    control: distributed.ProcessGroup | None = None
    """Group for exchanges between hosts, which need not wait for a GPU; None for the group of the tensors."""
    timeout: float = 0.0
    """Seconds to wait for another process in an exchange, after the first step."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and prints messages."""
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
        """Return whether the flag is set on any process; every process must call this."""
        if self.world == 1:
            return flag
        flags = torch.tensor(int(flag))
        distributed.all_reduce(flags, group=self.control)
        return bool(flags.item())

    def gather(self, value: T) -> list[T]:
        """Return every process's value, by rank; every process must call this."""
        values = [value] * self.world
        if self.world > 1:
            distributed.all_gather_object(values, value, group=self.control)
        return values

    def decide(self, choice: Callable[[], T]) -> T:
        """Return what the first process chooses; every process must call this.

        This is mainly for the contents of the run's folder, which a node may see as they were a minute ago.
        """
        chosen: list[Any] = [choice() if self.is_first else None]
        if self.world > 1:
            distributed.broadcast_object_list(chosen, group=self.control)
        result: T = chosen[0]
        return result

    def wait_for_all(self) -> None:
        """Return once every process has called this."""
        if self.world > 1:
            distributed.barrier(group=self.control)

    def end_first_step(self) -> None:
        """From now on, wait for others for a shorter time."""
        if self.world > 1 and self.device.type == "cuda":
            for group in distributed.distributed_c10d._world.pg_map:  # noqa: SLF001 - DeepSpeed's are among them
                distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=self.timeout), group)  # noqa: SLF001


@contextmanager
def joined(wanted: str | None = None, run: Path | None = None) -> Iterator[Process]:
    """Join the process group that the environment describes, and leave it at the end.

    `wanted` is a device, as in `ccsd.device.choose_device`. GPUs that wait too long write their last exchanges to the
    folder `run`.

    Raises
    ------
    UsageError
        If the environment is contradictory.
    TrainingError
        If the other processes do not join.

    If one of several processes fails inside this context, it prints the error and ends at once; nothing is raised.
    """
    _quieten_deepspeed()
    os.environ.update(from_srun(os.environ, slurm_hosts))
    here = rank_environment(os.environ)
    device = _device(here, wanted)
    timeout = _peer_timeout(device)
    _meet(here, device, timeout, run)
    process = Process(here.rank, here.world, device, here.local_world, control_group(here, device), timeout)
    try:
        yield process
    except BaseException as error:
        if here.world > 1:
            _leave(here.rank, _lost(timeout) if _is_lost_peer(error) else error)
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


def _leave(rank: int, error: BaseException) -> NoReturn:
    """Print the error and end this process at once, so that the launcher ends the others.

    There is no clean-up: NCCL's waits for all processes, and those that did not fail wait for this one elsewhere.
    """
    code, text = (130, "") if isinstance(error, KeyboardInterrupt) else ending(error) or (1, "")
    if not text or os.environ.get("CCSD_DEBUG"):
        text += "".join(["\n", *traceback.format_exception(error)])
    if code != 130:  # noqa: PLR2004 - Ctrl-C needs no message
        print(f"error: process {rank}: {text}", file=sys.stderr)
    end_at_once(code)


def end_at_once(code: int) -> NoReturn:
    """End this process without Python's own clean-up.

    A thread of torch's process groups that wants to call Python during that clean-up ends the process by SIGABRT,
    which a launcher takes for a failure of the training.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _lost(timeout: float) -> TrainingError:
    return TrainingError(
        f"lost contact with the other processes: one exited or did not respond for {timeout:.0f} s. Its own message, "
        "above or in its log, gives the reason. Run the same command again to resume"
    )


def _device(here: RankEnvironment, wanted: str | None) -> torch.device:
    join_gpu_memory()
    device = choose_device(wanted, here.local_rank)
    # DeepSpeed requires it even of a single process, and uses the GPU with this number.
    os.environ["LOCAL_RANK"] = str(here.local_rank if device.index is None else device.index)
    os.environ["DS_ACCELERATOR"] = device.type
    if device.type == "cuda":
        return device
    reuse_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cpus() // here.local_world))
    return device


def _meet(here: RankEnvironment, device: torch.device, timeout: float, run: Path | None) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    if here.world == 1:
        distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        return
    timeout *= FIRST_STEP if device.type == "cuda" else 1
    patience = timedelta(seconds=timeout)
    # DeepSpeed creates its own groups, which would use torch's default timeouts.
    for module in (distributed.constants, distributed.distributed_c10d):
        for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
            setattr(module, name, patience)
    if run is not None and device.type == "cuda":
        run.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "2000")
        os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
        os.environ.setdefault("TORCH_FR_DUMP_TEMP_FILE", str(run.absolute() / NCCL_TRACE))
    try:
        distributed.init_process_group(backend, timeout=patience, device_id=device if device.type == "cuda" else None)
        distributed.barrier()
    except RuntimeError as error:
        if "NCCL" in str(error):
            raise TrainingError(
                f"process {here.rank} of {here.world}: NCCL cannot connect the GPUs: {error}. Each process needs its "
                "own GPU; on each machine, start at most as many processes as it has GPUs"
            ) from None
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise TrainingError(
            f"process {here.rank} of {here.world} could not connect to the others at {where} within {timeout:.0f} s "
            f"({str(error).splitlines()[0]}). Start all of them at the same time, with a free port"
        ) from None


def control_group(here: RankEnvironment, device: torch.device) -> distributed.ProcessGroup | None:
    """Return a group for exchanges between hosts; None if the group of the tensors can be used."""
    return distributed.new_group(backend="gloo") if here.world > 1 and device.type == "cuda" else None


def _peer_timeout(device: torch.device) -> float:
    text = os.environ.get(PEER_TIMEOUT, str(PEER_TIMEOUTS[device.type]))
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"environment variable {PEER_TIMEOUT} is {text!r}; expected seconds, or leave it unset"
        ) from None


def _is_lost_peer(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, RuntimeError) and (
        isinstance(error, distributed.DistError) or "gloo" in text or "NCCL" in text
    )


def _quieten_deepspeed() -> None:
    """Keep DeepSpeed's information messages and its use of old torch names out of the user's log."""
    os.environ.setdefault("DS_LOG_LEVEL", "warning")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)

"""Where this process stands among the others, as its launcher says in the environment.

torchrun and the jobs of `cluster` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; a bare `srun` sets
variables of its own, from which the same follows. Without any of them the process is alone.
"""

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ccsd.errors import UsageError
from cluster.rendezvous import PORTS


@dataclass(frozen=True)
class Place:
    """Rank of this process, number of processes, rank on this machine, and how many are on it."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def place(environment: Mapping[str, str]) -> Place:
    """Return the place that RANK and its fellows describe.

    Raises
    ------
    UsageError
        If a variable is not a number, is missing beside the others, or contradicts them.
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
    return Place(rank, world, _number(environment, "LOCAL_RANK", 0), _number(environment, "LOCAL_WORLD_SIZE", world))


def from_srun(environment: Mapping[str, str], hosts: Callable[[str], list[str]]) -> dict[str, str]:
    """Return the variables that torchrun would set for a task of a bare `srun`; none where there is nothing to add.

    `hosts` expands SLURM's compressed list of nodes. The port follows from the job and step, which all tasks know.
    """
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS", 1)
    if tasks == 1 or "WORLD_SIZE" in environment or "RANK" in environment:
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

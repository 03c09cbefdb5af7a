"""Where the ranks of a job meet, and the environment variables that identify each of them.

On SLURM, rank 0 picks a free port on its machine, and the others read it from the job's folder.
"""

import json
import random
import socket
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import JobError
from cluster.job_record import write_json
from cluster.waiting import wait_until

PORTS = range(20000, 32000)
"""Below the kernel's default range for outgoing connections, so that none of these takes the port in the meantime."""

MEET_S = 300.0
"""Longest wait for rank 0; file attributes on NFS may be a minute old and nodes may boot at different speeds."""

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Variables that set the number of threads of linear algebra libraries."""

GPUS = "CCSD_GPUS_PER_NODE"
"""Environment variable: number of GPUs requested on each machine; unset if the job was not started by the launcher."""

QUERIES = ("SQUEUE_", "SCANCEL_", "SACCT_", "SINFO_", "SCONTROL_")
"""Prefixes of variables with which users filter or sort the output of SLURM's commands."""

ENCLOSING = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", *QUERIES, "SUBMITIT_", "PMI_", "PMI2_", "PMIX_", "OMPI_")
KEPT = frozenset(
    {
        "SLURM_CONF",
        "SLURM_CONF_SERVER",
        "SLURM_CLUSTERS",
        "SLURM_CLUSTERS_CONF",
        "SLURM_JWT",
        "SBATCH_CLUSTERS",
        "SBATCH_ACCOUNT",
    }
)
"""SLURM's commands need these to find their cluster and get access to it. The account is the one that sites set in the
shell; an account in the settings takes precedence."""


def meet(folder: Path, attempt: int, rank: int, host: str) -> tuple[str, int]:
    """Return address and port of rank 0's rendezvous; rank 0 chooses a new one for every attempt.

    Raises
    ------
    JobError
        If rank 0 does not write it in time.
    """
    path = folder / f"rendezvous-{attempt}.json"
    if rank == 0:
        port = free_ports(1)[0]
        write_json(path, {"address": host, "port": port})
        return host, port
    if not wait_until(path.exists, MEET_S):
        raise JobError(
            f"rank {rank} found no {path} within {MEET_S:.0f} s: rank 0 did not start, or the folder is not shared"
        )
    place = json.loads(path.read_text(encoding="utf-8"))
    return str(place["address"]), int(place["port"])


def free_ports(count: int) -> range:
    """Return neighbouring TCP ports that are free on this machine at this moment."""
    for first in random.sample(PORTS[: 1 - count or None], 200):
        if all(_is_free(port) for port in range(first, first + count)):
            return range(first, first + count)
    raise JobError(f"no free TCP port between {PORTS.start} and {PORTS.stop - 1} on {socket.gethostname()}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def environment(
    rank: int, world: int, local_rank: int, local_world: int, place: tuple[str, int], cpus: int
) -> dict[str, str]:
    """Return the variables that torch.distributed, DeepSpeed and linear algebra libraries read.

    For a loopback address, gloo gets the loopback interface. Otherwise it would look up the machine's name,
    which often resolves to nothing or to an address behind a firewall.

    Thread variables that are already set are replaced: Snakemake sets them for every job, so they describe the
    launcher. Each rank would otherwise use the threads meant for all, and results would differ in the last digits.
    """
    address, port = place
    variables = {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_world),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        **dict.fromkeys(THREADS, str(cpus)),
    }
    if address == "localhost" or address.startswith("127."):
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    return variables


def without_enclosing_job(environment: Mapping[str, str]) -> dict[str, str]:
    """Drop the variables of an enclosing SLURM job, and the user's defaults for SLURM's commands.

    The enclosing job's memory and task counts would apply to the new job. The user's defaults take precedence over the
    options in its script, so that `SBATCH_TIMELIMIT` or `SBATCH_EXPORT=NONE` would override the profile, and
    `SQUEUE_PARTITION` would hide jobs.
    """
    return {key: value for key, value in environment.items() if key in KEPT or not key.startswith(ENCLOSING)}

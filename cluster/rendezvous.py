"""Where the ranks of a job meet, and the environment that tells each of them who it is.

On SLURM rank 0 picks a free port on its machine and the others read it from the job's folder.
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
"""Below the kernel's default range for outgoing connections, so that none of those takes the port meanwhile."""

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
"""Variables by which libraries of linear algebra learn how many threads to use."""

GPUS = "CCSD_GPUS_PER_NODE"
"""Environment variable: how many GPUs of each machine the ranks were promised; unset without any."""

QUERIES = ("SQUEUE_", "SCANCEL_", "SACCT_", "SINFO_", "SCONTROL_")
"""Beginnings of variables by which users limit or sort what SLURM's commands show them."""

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
"""Without these no SLURM command finds or enters its cluster; the account is what sites have set in the shell, and an
account of the settings comes before it."""


def meet(folder: Path, attempt: int, rank: int, host: str) -> tuple[str, int]:
    """Return address and port of rank 0's rendezvous; rank 0 chooses a new one for every attempt.

    Raises
    ------
    JobError
        If rank 0 has not written it in time.
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
    """Return the variables that torch.distributed, DeepSpeed and libraries of linear algebra read.

    On a loopback address gloo is told to use it; by itself it would look up the machine's name, which often resolves
    to nothing or to an address behind a firewall. Thread variables that are already set describe the launcher, because
    Snakemake sets them for every job: left alone they give each rank the threads of all, and other last digits.
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
    """Drop what an enclosing SLURM job left in the environment, and the user's defaults for SLURM's commands.

    The memory and task counts of the one would bind the new job; the others come before the options in its script, so
    that `SBATCH_TIMELIMIT` or `SBATCH_EXPORT=NONE` would overrule the profile, and `SQUEUE_PARTITION` would hide jobs.
    """
    return {key: value for key, value in environment.items() if key in KEPT or not key.startswith(ENCLOSING)}

"""Where the ranks of a job meet: rank 0 picks a free port on its machine, the others read it from the job's folder."""

import json
import random
import socket
import time
from pathlib import Path

from cluster import rank_status
from cluster.errors import JobError
from cluster.job_record import write_json

PORTS = range(20000, 32000)
"""Below the kernel's default range for outgoing connections, so that none of those takes the port meanwhile."""

PATIENCE_S = 300.0
"""Longest wait for rank 0; file attributes on NFS may be a minute old and nodes may boot at different speeds."""


def meet(folder: Path, attempt: int, rank: int, host: str, patience_s: float = PATIENCE_S) -> tuple[str, int]:
    """Return address and port of rank 0's rendezvous; rank 0 chooses it, every attempt anew.

    Raises
    ------
    JobError
        If rank 0 has not said where within `patience_s`.
    """
    path = folder / f"rendezvous-{attempt}.json"
    if rank == 0:
        port = free_port()
        write_json(path, {"address": host, "port": port})
        return host, port
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            place = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if rank_status.is_cancelled(folder):
                raise JobError(f"rank {rank} was told to end before it met rank 0") from None
            time.sleep(0.1)
        else:
            return str(place["address"]), int(place["port"])
    raise JobError(
        f"rank {rank} found no {path} within {patience_s:.0f} s: rank 0 did not start, or the folder is not shared"
    )


def free_port() -> int:
    """Return a TCP port that is free on this machine at this moment."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise JobError(f"no free TCP port between {PORTS.start} and {PORTS.stop - 1} on {socket.gethostname()}")


def environment(rank: int, world: int, local_rank: int, local_world: int, place: tuple[str, int]) -> dict[str, str]:
    """Return the variables that torch.distributed and DeepSpeed read.

    On a loopback address gloo is told to use it; by itself it would look up the machine's name, which often resolves
    to nothing or to an address behind a firewall.
    """
    address, port = place
    variables = {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_world),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }
    if address == "localhost" or address.startswith("127."):
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    return variables

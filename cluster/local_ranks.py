"""Ranks on this machine: child processes of the launcher, which end when it ends, for whatever reason.

Nothing outlives the launcher, so there is nothing to attach to: running the same command again restarts the ranks, and
they resume from their own state.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import rendezvous
from cluster.errors import JobError
from cluster.logs import Follower, failure, log_file, say
from cluster.rank_status import RankStatus
from cluster.settings import JobSettings
from cluster.task import AGREE_WAIT_S, GRACE_S, REQUEUE_CODE, die_with_parent, kill_group
from cluster.waiting import wait_until

JOB_ID = "local"
"""Takes the place of a job ID in the names of logs."""

HOST = "127.0.0.1"
POLL_S = 0.05

Children = Sequence["subprocess.Popen[bytes]"]


def run_ranks(command: Sequence[str], folder: Path, settings: JobSettings, name: str) -> int:
    """Run `command` once per task on this machine until all have ended.

    Parameters
    ----------
    command
        Program and arguments.
    folder
        Folder of this launch, for the logs: one per rank. The log of rank 0 is copied to standard output.
    settings
        Number of tasks and their resources.
    name
        Name of the job in messages.

    Returns
    -------
    int
        0 if all succeeded, 75 if all saved their state and stopped on request. The launcher does not start them again.

    Raises
    ------
    JobError
        If a rank fails; the others are then ended. The message ends with its last lines and the log folder.
    """
    shared = {
        **rendezvous.without_enclosing_job(os.environ),
        "CUDA_VISIBLE_DEVICES": visible_devices(settings.gpus, os.environ.get("CUDA_VISIBLE_DEVICES")),
        rendezvous.GPUS: str(settings.gpus),
    }
    say(f"starting {settings.tasks} process{'es' * (settings.tasks > 1)} on this machine, logs in {folder}")
    follower = Follower(log_file(folder, JOB_ID, 0))
    codes, first = _run_once(command, folder, settings, shared, follower)
    if first is None:
        return 0
    if all(code == REQUEUE_CODE for code in codes):
        say("the processes saved and stopped, as requested; run the same command again to resume")
        return REQUEUE_CODE
    status = RankStatus(first, socket.gethostname(), 0, codes[first])
    raise JobError(failure(name, None, status, log_file(folder, JOB_ID, first), shown=first == 0))


def visible_devices(gpus: int, visible: str | None) -> str:
    """Return CUDA_VISIBLE_DEVICES for the ranks: as many as requested of the GPUs that the user made visible."""
    if visible is None:
        return ",".join(str(index) for index in range(gpus))
    available = [name for name in visible.split(",") if name]
    if gpus > len(available):
        raise JobError(
            f"gpus_per_node={gpus}, but CUDA_VISIBLE_DEVICES={visible!r} shows {len(available)}; "
            "request fewer or make more visible"
        )
    return ",".join(available[:gpus])


def _run_once(
    command: Sequence[str], folder: Path, settings: JobSettings, shared: Mapping[str, str], follower: Follower
) -> tuple[list[int | None], int | None]:
    """Run all ranks until all have ended or one has failed; return the exit codes and the first rank without success.

    When it returns or raises, no process of the ranks is left.
    """
    place = (HOST, rendezvous.free_ports(1)[0])
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(settings.tasks):
            own = rendezvous.environment(rank, settings.tasks, rank, settings.tasks, place, settings.cpus_per_task)
            children.append(_start(command, {**shared, **own}, log_file(folder, JOB_ID, rank)))
        first = _first_failure(children, follower)
        codes = [child.poll() for child in children]
        _end(children, GRACE_S)
    except KeyboardInterrupt:
        say("interrupted: the processes are saving and will end; press Ctrl-C again to end them at once")
        _end(children, settings.signal_delay_s)
        raise
    finally:
        for child in children:
            kill_group(child)
            child.wait()
        follower.forward()
    return codes, first


def _start(command: Sequence[str], variables: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches only the launcher, which asks the ranks to save
            preexec_fn=die_with_parent,  # noqa: PLW1509 - no Python threads here
        )


def _first_failure(children: Children, follower: Follower) -> int | None:
    """Wait until all ranks have ended or one has failed; return the first that did not succeed.

    A rank that asks to be started again has not failed, as long as the others soon do the same.
    """
    deadline: float | None = None
    while True:
        follower.forward()
        codes = [child.poll() for child in children]
        failed = [rank for rank, code in enumerate(codes) if code not in {None, 0, REQUEUE_CODE}]
        if failed:
            return min(failed, key=lambda rank: (codes[rank] or 0) > 0)  # a killed rank is a cause, never a consequence
        if REQUEUE_CODE in codes:
            deadline = deadline or time.monotonic() + AGREE_WAIT_S
        if None not in codes or (deadline and time.monotonic() > deadline):
            return codes.index(REQUEUE_CODE) if REQUEUE_CODE in codes else None
        time.sleep(POLL_S)


def _end(children: Children, seconds: float) -> None:
    """Ask the ranks that are still running to save and end, and give them time to do so."""
    for child in children:
        child.send_signal(signal.SIGTERM)
    wait_until(lambda: all(child.poll() is not None for child in children), seconds, POLL_S)

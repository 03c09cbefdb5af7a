"""A job on this machine: is its controller alive, and ending it without orphans."""

import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from cluster import outcome
from cluster.birth import birth
from cluster.state import JobRecord
from cluster.task import GRACE_S, MARK

MARGIN_S = 5.0


def is_alive(job: JobRecord) -> bool:
    """Tell whether the job's controller still runs; a later process with the same pid is not it."""
    return _controller(job) is not None


def state(job: JobRecord) -> str:
    """Return RUNNING or COMPLETED, in SLURM's words. A job of which a rank vanished is ended: its peers would hang."""
    if is_alive(job) and lost_ranks(job):
        end(job)
    return "RUNNING" if is_alive(job) else "COMPLETED"


def lost_ranks(job: JobRecord) -> list[int]:
    """Return the ranks whose process is gone without having said how it ended; the others would wait for ever."""
    states = outcome.read_outcomes(Path(job.folder), job.tasks)
    return [state.rank for state in states if state.exit_code is None and birth(state.pid) != state.created]


def end(job: JobRecord, grace_s: float = GRACE_S) -> None:
    """End all ranks: they get TERM and `grace_s` seconds to save, then whatever belongs to the job is killed."""
    outcome.mark_cancelled(Path(job.folder))
    deadline = time.monotonic() + grace_s + MARGIN_S
    while is_alive(job) and time.monotonic() < deadline:
        time.sleep(0.1)
    controller = _controller(job)
    kill([controller] if controller is not None else [])
    kill(_members(job))


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes; psutil refuses to touch one that only inherited a pid."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _controller(job: JobRecord) -> psutil.Process | None:
    try:
        process = psutil.Process(int(job.job_id))
        alive = birth(process.pid) == job.created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if alive else None


def _members(job: JobRecord) -> list[psutil.Process]:
    """Return the processes that carry the job's mark: ranks and their helpers, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == job.folder:
                found.append(process)
        except psutil.Error:
            continue
    return found

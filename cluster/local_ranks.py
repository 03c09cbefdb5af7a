"""A job on this machine: is its controller alive, and ending it without orphans."""

import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from cluster import rank_status
from cluster.birth import birth
from cluster.job_record import JobRecord
from cluster.task import GRACE_S, MARK

MARGIN_S = 5.0

SUSPICION_S = 20.0
"""How long fewer ranks than there should be may run, before one is lost: they start and start again one by one."""


def is_alive(job: JobRecord) -> bool:
    """Tell whether the job's controller still runs; a later process with the same pid is not it."""
    return _controller(job) is not None


def state(job: JobRecord) -> str:
    """Return RUNNING or COMPLETED, in SLURM's words.

    A job of which a rank vanished is ended, its peers would wait for ever; so is what a killed controller left.
    """
    controller = _controller(job)
    if controller is None:
        end_orphans(job)
    elif _has_lost_a_rank(job, controller):
        end(job)
    return "RUNNING" if is_alive(job) else "COMPLETED"


def end_orphans(job: JobRecord) -> None:
    """End ranks that outlived their killed controller: nobody would wait for them, and a new job would run beside."""
    if not is_alive(job) and _members(job):
        end(job)


def end(job: JobRecord, grace_s: float = GRACE_S) -> None:
    """End all ranks: they get TERM and `grace_s` seconds to save, then whatever belongs to the job is killed."""
    rank_status.mark_cancelled(Path(job.folder))
    deadline = time.monotonic() + grace_s + MARGIN_S
    while _members(job) and time.monotonic() < deadline:
        time.sleep(0.1)
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


def _has_lost_a_rank(job: JobRecord, controller: psutil.Process) -> bool:
    """Tell whether the process of a rank is gone without having said how it ended."""
    states = rank_status.read_outcomes(Path(job.folder), job.tasks)
    if any(state.exit_code is None and birth(state.pid) != state.created for state in states):
        return True
    # It may have ended before it could say anything.
    deadline = time.monotonic() + SUSPICION_S
    while _runs_fewer(job, controller):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.2)
    return False


def _runs_fewer(job: JobRecord, controller: psutil.Process) -> bool:
    """Tell whether a running controller has fewer ranks than the job, not counting those that said how they ended."""
    folder = Path(job.folder)
    attempt = rank_status.count_requeues(folder)
    ended = [
        s for s in rank_status.read_outcomes(folder, job.tasks) if s.exit_code is not None and s.attempt == attempt
    ]
    try:
        running = [child for child in controller.children() if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return False
    return is_alive(job) and len(running) + len(ended) < job.tasks


def _members(job: JobRecord) -> list[psutil.Process]:
    """Return the processes that carry the job's mark, whoever their parent is by now: controller, ranks, helpers."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == job.folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found

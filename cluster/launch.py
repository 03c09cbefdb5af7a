"""Run a distributed command to its end, on this machine or as a SLURM job.

    run([sys.executable, "train.py"], Path("run/logs"), JobSettings(tasks_per_node=2), "train")

Each task runs the command with RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT set. On `local`, the ranks end
with the launcher, and the same call starts them again. On `slurm`, the job keeps running without the launcher, and the
same call attaches to it; a command that exits with code 75 is started again. There are never two jobs for one run.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from cluster import local_ranks, rank_status, slurm_queries
from cluster.errors import JobError, SettingsError, advise
from cluster.job_record import FILE, JobRecord, command_digest, job_name, new_folder
from cluster.logs import Follower, failure, log_file, say
from cluster.settings import JobSettings
from cluster.submit import submit, write_record
from cluster.task import REQUEUE_CODE
from cluster.waiting import exclusive, wait_until

POLL_S = (1.0, 15.0)
"""Seconds between two checks of a SLURM job: initial and maximum."""

SILENCE_S = 3600.0
"""How long the controller may be unresponsive before the launcher gives up on its job."""

SETTLE_S = 60.0
"""How long the ranks' status files may take to reach a shared file system after the job's end."""

FIRST_SETTLE_S = 5.0
"""The same for the first status file: ranks that never started write none."""


def run(command: Sequence[str], folder: Path, settings: JobSettings, name: str, results: Sequence[Path] = ()) -> int:
    """Run `command` once on every task of a job and return when all have succeeded.

    Parameters
    ----------
    command
        Program and arguments. When started again, it must resume from its own state on disk.
    folder
        Folder of this run's logs and job record, on a file system that all nodes share.
    settings
        Cluster, nodes, tasks and their resources.
    name
        Readable part of the job's name.
    results
        Files that the command produces. If they exist, a SLURM job that succeeded is not submitted again.

    Returns
    -------
    int
        0, or 75 if the ranks on this machine saved their state and stopped on request.

    Raises
    ------
    JobError
        If the job cannot be submitted or fails; the message ends with the failing rank's last lines and the log folder.
    SettingsError
        If SLURM cannot use the folder's name.
    """
    folder = folder.absolute()
    check_folder(folder, settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _interruptible():
            if settings.cluster != "slurm":
                return _run_here(command, folder, settings, name)
            _run_on_slurm(command, folder, settings, name, results)
            return 0
    except OSError as error:
        raise JobError(advise(error)) from None


def live_job(folder: Path) -> JobRecord | None:
    """Return the recorded job of a run's folder if it is running or pending.

    Raises
    ------
    JobError
        If its state cannot be determined.
    """
    job = JobRecord.load(folder)
    return job if job is not None and _is_alive(job) else None


def check_folder(folder: Path, settings: JobSettings) -> None:
    """Reject names that SLURM rewrites: both submitit and SLURM replace %-patterns in log paths."""
    if settings.cluster != "slurm":
        return
    for char, why in (("%", "SLURM replaces %-patterns in it"), ("\\", "SLURM reads it as an escape character")):
        if char in str(folder):
            raise SettingsError(
                f"{folder}: a folder for jobs cannot have {char!r} in its name: {why}; rename the folder"
            )


def _run_here(command: Sequence[str], folder: Path, settings: JobSettings, name: str) -> int:
    with _lock(folder):
        job = live_job(folder)
        if job is not None:
            raise JobError(
                f"{folder}: {job.title} of this run is still active on the SLURM cluster; wait for it, or end it with "
                f"`scancel {job.job_id}`, then start again"
            )
        return local_ranks.run_ranks(command, new_folder(folder), settings, name)


def _run_on_slurm(
    command: Sequence[str], folder: Path, settings: JobSettings, name: str, results: Sequence[Path]
) -> None:
    """Attach to the run's job or submit one, and wait for its end; an interrupt ends the launcher, not the job."""
    try:
        _attach_or_submit(command, folder, settings, name, results)
    except KeyboardInterrupt:
        job = JobRecord.load(folder)
        if job is not None and job.ended is None:
            say(f"{job.title} keeps running; run the same command to attach to it, `scancel {job.job_id}` to end it")
        raise


def _attach_or_submit(
    command: Sequence[str], folder: Path, settings: JobSettings, name: str, results: Sequence[Path]
) -> None:
    with _lock(folder):
        job = _last_job(folder, name)
        attached = job is not None and _is_alive(job)
        if job is not None and attached:
            _reject_other_work(job, command, folder)
            say(f"attached to {job.title}, logs in {job.folder}")
        elif job is not None and _has_result(job, command, results):
            say(f"{job.title} had already succeeded")
            return
        else:
            job = submit(command, folder, settings, name)
    while True:
        state = _wait(job, attached=attached)
        statuses = rank_status.read_statuses(Path(job.folder), job.tasks)
        if rank_status.succeeded(statuses, job.tasks):
            replace(job, ended="ok").save(folder)
            return
        replace(job, ended=state or "failed").save(folder)
        failed = rank_status.first_failure(Path(job.folder), statuses)
        if not _should_resubmit(job, state, failed, settings):
            rank = failed.rank if failed else 0
            log = log_file(Path(job.folder), job.job_id, rank)
            raise JobError(failure(job.title, state, failed, log, shown=rank == 0 and not attached))
        say(f"{job.title} ended{f' as {state}' if state else ''}; submitting it again to resume from its own state")
        job, attached = submit(command, folder, settings, name, job.submissions + 1), False


def _last_job(folder: Path, name: str) -> JobRecord | None:
    """Return the run's last job, alive or ended, even if it was never recorded; None if there never was one."""
    job = JobRecord.load(folder)
    if job is not None and _is_alive(job):
        return job
    job_id = slurm_queries.find(job_name(name, folder))
    if job_id is None or (job is not None and job.job_id == job_id):
        return job
    pickles = sorted(folder.glob(f"[0-9]*/{job_id}_submitted.pkl"))
    if pickles:
        return write_record(job_id, pickles[0].parent)
    slurm_queries.cancel(job_id)  # it cannot run without its pickled call
    return job


def _is_alive(job: JobRecord) -> bool:
    """Return whether a recorded job is still running or pending.

    Raises
    ------
    JobError
        If this cannot be determined; nothing new may be started then.
    """
    state = slurm_queries.state(job.job_id)
    if state is None and job.ended is None and not slurm_queries.answers():
        raise JobError(
            f"SLURM does not answer, so it is unknown whether {job.title} is still running; try again later or, if it "
            f"has ended, delete {Path(job.folder).parent / FILE}"
        )
    return state is not None and state not in slurm_queries.ENDED


def _has_result(job: JobRecord, command: Sequence[str], results: Sequence[Path]) -> bool:
    """Return whether an ended job ran exactly this command and its result files still exist."""
    if job.command != command_digest(command) or not results or not all(path.exists() for path in results):
        return False
    return rank_status.succeeded(rank_status.read_statuses(Path(job.folder), job.tasks), job.tasks)


def _reject_other_work(job: JobRecord, command: Sequence[str], folder: Path) -> None:
    """Raise a `JobError` if a live job runs another command than the one requested now."""
    if job.command != command_digest(command):
        raise JobError(
            f"{folder}: {job.title} is still active with a different command (were settings changed?); "
            f"wait for it, or end it with `scancel {job.job_id}`, then start again"
        )


def _should_resubmit(
    job: JobRecord, state: str | None, failed: rank_status.RankStatus | None, settings: JobSettings
) -> bool:
    """Return whether a job ended through no fault of its command, or asked to be started again and was not."""
    spent = job.submissions - 1 + rank_status.count_requeues(Path(job.folder))
    asked = failed is not None and failed.exit_code == REQUEUE_CODE and state != "CANCELLED"
    return (asked or state in slurm_queries.BLAMELESS) and spent < settings.max_requeues


def _wait(job: JobRecord, *, attached: bool) -> str | None:
    """Wait until all ranks have succeeded or the job has ended; return SLURM's state of a failed job, if it has one.

    Forwards the job's output: from now on if attached, else from its beginning.
    """
    folder = Path(job.folder)
    follower = Follower(log_file(folder, job.job_id, 0), from_end=attached)
    first, longest = POLL_S
    pause, reported, known_at = first, dict[str, set[str]](), time.monotonic()
    try:
        while True:
            busy = follower.forward()
            if rank_status.succeeded(rank_status.read_statuses(folder, job.tasks), job.tasks):
                return None
            state, reason = slurm_queries.state_and_reason(job.job_id)
            if state is None:
                if _is_given_up(time.monotonic() - known_at):
                    return "UNKNOWN"
            elif state in slurm_queries.ENDED:
                _settle(job)
                return state
            else:
                known_at = time.monotonic()
                reported = _report(job, state, reason, reported)
            pause = first if busy else min(pause * 1.5, longest)
            time.sleep(pause)
    finally:
        follower.forward()


def _report(job: JobRecord, state: str, reason: str, reported: dict[str, set[str]]) -> dict[str, set[str]]:
    """Print a job's state and reason if they are new; return the state with all reasons reported for it.

    Reasons come and go (Priority, Resources, Priority); each is reported once.
    """
    if reason in reported.get(state, ()):
        return reported
    say(f"{job.title} is {state.lower()}{f' ({slurm_queries.explain(reason)})' if reason else ''}")
    return {state: reported.get(state, set()) | {reason}}


def _is_given_up(unknown_s: float) -> bool:
    """Return whether SLURM has not known the job for too long; the limit is longer while SLURM does not answer."""
    return unknown_s > (SETTLE_S if slurm_queries.answers() else SILENCE_S)


def _settle(job: JobRecord) -> None:
    """Give the ranks' status files time to appear: a shared file system may show them late."""
    folder = Path(job.folder)

    def is_explained() -> bool:
        statuses = rank_status.read_statuses(folder, job.tasks)
        return rank_status.succeeded(statuses, job.tasks) or rank_status.first_failure(folder, statuses) is not None

    if wait_until(lambda: rank_status.read_statuses(folder, job.tasks), FIRST_SETTLE_S):
        wait_until(is_explained, SETTLE_S)


def _lock(folder: Path) -> AbstractContextManager[None]:
    """Let one launcher at a time decide whether to submit or, on this machine, run its ranks; the others wait."""
    return exclusive(folder / ".lock", lambda holder: say(f"waiting for another launcher of this run, {holder}"))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat TERM, and the HUP of a closed terminal, like Ctrl-C.

    After that only Ctrl-C interrupts again: a closed terminal may send several signals, and they must not interrupt
    the saving that the first one started.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in numbers}
    caught = [number for number, handler in previous.items() if handler != signal.SIG_IGN]  # nohup ignores HUP

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in caught:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in caught:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, previous[number])

"""Run a distributed command as a job and see it through: submit, or attach to the one that is already there, and wait.

    run([sys.executable, "train.py"], Path("run/logs"), JobSettings(tasks_per_node=2), "train")

Each task runs the command with RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT set. A command that exits
with code 75 is started again. On `local`, interrupting the launcher ends the ranks; on `slurm` the job goes on. In both
cases the same call attaches to a job that is alive, so a killed launcher never leads to two jobs of one run.
"""

import fcntl
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from cluster import attach, local_ranks, messages, rank_status, slurm_queries
from cluster.errors import JobError, SettingsError
from cluster.job_record import JobRecord
from cluster.logs import Follower, log_file, say
from cluster.settings import JobSettings
from cluster.submission import submit
from cluster.task import REQUEUE_CODE

POLL_S = {"local": (0.2, 0.5), "slurm": (1.0, 15.0)}
"""Seconds between two looks at the job: at first, and at most."""

SILENCE_S = 3600.0
"""How long a controller may not answer before its job is given up."""

SETTLE_S = 60.0
"""How long the ranks' last words may take to reach a shared file system after the job's end."""


def run(command: Sequence[str], folder: Path, settings: JobSettings, name: str, results: Sequence[Path] = ()) -> None:
    """Run `command` once on every task of a job and return when all have ended well.

    Parameters
    ----------
    command
        Program and arguments. It must carry on from its own state on disk when it is started again.
    folder
        Folder of this run's logs and job record, on a file system that all nodes share.
    settings
        Cluster, nodes, tasks and what each of them gets.
    name
        Readable part of the job's name.
    results
        Files that the command leaves. If they exist, a job that ended well is taken as it is, without a new one.

    Raises
    ------
    JobError
        If the job cannot be submitted or fails; the message ends with the failing rank's last lines and the log folder.
    SettingsError
        If the folder's name cannot be used.
    """
    folder = folder.absolute()
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _interruptible():
        with _lock(folder):
            job, attached = _live_job(command, folder, settings, name, results)
        while job is not None:
            job = _see_through(job, command, folder, settings, name, attached=attached)
            attached = False


def check_folder(folder: Path) -> None:
    """Refuse names that job managers rewrite: both submitit and SLURM replace %-patterns in log paths."""
    for char, why in (("%", "SLURM replaces %-patterns in it"), ("\\", "SLURM takes it for an escape")):
        if char in str(folder):
            raise SettingsError(
                f"{folder}: a folder for jobs cannot have {char!r} in its name: {why}; rename the folder"
            )


def _live_job(
    command: Sequence[str], folder: Path, settings: JobSettings, name: str, results: Sequence[Path]
) -> tuple[JobRecord | None, bool]:
    """Return the job to wait for, None when a finished one has left its results, and whether it was there already."""
    job = attach.known(folder, name, settings)
    if job is not None and attach.is_alive(job):
        attach.refuse_other_work(job, command, folder)
        say(f"attached to {job.title}, logs in {job.folder}")
        return job, True
    if job is not None and attach.has_result(job, command, results):
        say(f"{job.title} had already ended well")
        return None, False
    if job is not None and job.cluster == "local":
        local_ranks.end_orphans(job)
    return _submit(command, folder, settings, name), False


def _submit(command: Sequence[str], folder: Path, settings: JobSettings, name: str, submissions: int = 1) -> JobRecord:
    job, interrupted = submit(command, folder, settings, name, submissions)
    if interrupted:
        _give_up(job)
        raise KeyboardInterrupt
    return job


def _see_through(
    job: JobRecord, command: Sequence[str], folder: Path, settings: JobSettings, name: str, *, attached: bool
) -> JobRecord | None:
    """Wait for the job; None when it ended well, a successor when it ended through no fault of the command."""
    try:
        state = _wait(job, attached=attached)
    except KeyboardInterrupt:
        _give_up(job)
        raise
    outcomes = rank_status.read_outcomes(Path(job.folder), job.tasks)
    if rank_status.succeeded(outcomes, job.tasks):
        replace(job, ended="ok").save(folder)
        return None
    replace(job, ended=state or "failed").save(folder)
    failed = rank_status.first_failure(Path(job.folder), outcomes)
    if _deserves_another(job, state, failed, settings):
        say(
            f"{job.title} ended{f' as {state}' if state else ''}; submitting it again, it carries on from its own state"
        )
        return _submit(command, folder, settings, name, job.submissions + 1)
    raise JobError(messages.failure(job, state, failed))


def _deserves_another(
    job: JobRecord, state: str | None, failed: rank_status.RankOutcome | None, settings: JobSettings
) -> bool:
    """Tell whether a job ended through no fault of its command, or asked to be started again and was not."""
    spent = job.submissions - 1 + rank_status.count_requeues(Path(job.folder))
    asked = failed is not None and failed.exit_code == REQUEUE_CODE and state != "CANCELLED"
    return (asked or state in slurm_queries.BLAMELESS) and spent < settings.max_requeues


def _wait(job: JobRecord, *, attached: bool) -> str | None:
    """Wait until all ranks ended well or the job is over; return SLURM's word for a bad end, if it has one.

    Shows what the job prints from now on, that of a job of our own from its beginning.
    """
    folder = Path(job.folder)
    follower = Follower(log_file(folder, job.job_id, 0), from_end=attached)
    first, longest = POLL_S[job.cluster]
    pause, shown, known_at = first, "", time.monotonic()
    ending: str | None = None
    while ending is None:
        busy = follower.forward()
        if rank_status.succeeded(rank_status.read_outcomes(folder, job.tasks), job.tasks):
            break
        state = local_ranks.state(job) if job.cluster == "local" else slurm_queries.state(job.job_id)
        if state is None:
            ending = _given_up(time.monotonic() - known_at)
        elif state in slurm_queries.ENDED:
            ending = state
            _settle(job)
        else:
            known_at, shown = time.monotonic(), _tell(job, state, shown)
        pause = first if busy else min(pause * 1.5, longest)
        time.sleep(0 if ending else pause)
    follower.forward()
    return ending if job.cluster == "slurm" else None


def _given_up(unknown_s: float) -> str | None:
    """Return UNKNOWN when SLURM has said nothing of the job for too long: soon if it answers, late if it is away."""
    return "UNKNOWN" if unknown_s > (SETTLE_S if slurm_queries.answers() else SILENCE_S) else None


def _tell(job: JobRecord, state: str, shown: str) -> str:
    if state != shown and job.cluster == "slurm":
        say(f"{job.title} is {state.lower()}")
    return state


def _settle(job: JobRecord) -> None:
    """Give the ranks' last words time to arrive: a shared file system may show them late."""
    if job.cluster == "local":
        return
    folder, deadline = Path(job.folder), time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        outcomes = rank_status.read_outcomes(folder, job.tasks)
        if not outcomes:
            deadline = min(deadline, time.monotonic() + 5.0)
        elif rank_status.succeeded(outcomes, job.tasks) or rank_status.first_failure(folder, outcomes):
            return
        time.sleep(0.5)


def _give_up(job: JobRecord) -> None:
    """Say what becomes of the job when the launcher is interrupted; on this machine, end it."""
    if job.cluster == "slurm":
        say(f"{job.title} goes on; the same command attaches to it, `scancel {job.job_id}` ends it")
        return
    say("interrupted: ending the ranks")
    local_ranks.end(job)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one launcher at a time decide whether to submit."""
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat TERM like Ctrl-C; a second one during the clean-up finds the ranks already told to end."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        previous = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread: signals are the caller's business
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)

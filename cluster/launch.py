"""Run a distributed command and see it through, on this machine or as a SLURM job.

    run([sys.executable, "train.py"], Path("run/logs"), JobSettings(tasks_per_node=2), "train")

Each task runs the command with RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT set. On `local` the ranks end
with the launcher, and the same call starts them again; on `slurm` the job goes on, a command that exits with code 75 is
started again, and the same call attaches to the job. There are never two jobs of one run.
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
"""Seconds between two looks at a SLURM job: at first, and at most."""

SILENCE_S = 3600.0
"""How long a controller may not answer before its job is given up."""

SETTLE_S = 60.0
"""How long the ranks' status files may take to reach a shared file system after the job's end."""

FIRST_SETTLE_S = 5.0
"""The same for the first of them: ranks that never started write none."""


def run(command: Sequence[str], folder: Path, settings: JobSettings, name: str, results: Sequence[Path] = ()) -> int:
    """Run `command` once on every task of a job and return when all have ended well.

    Parameters
    ----------
    command
        Program and arguments. It must resume from its own state on disk when it is started again.
    folder
        Folder of this run's logs and job record, on a file system that all nodes share.
    settings
        Cluster, nodes, tasks and what each of them gets.
    name
        Readable part of the job's name.
    results
        Files that the command leaves. If they exist, a SLURM job that ended well is not submitted again.

    Returns
    -------
    int
        0, or 75 when the ranks on this machine saved and stopped because they were asked to.

    Raises
    ------
    JobError
        If the job cannot be submitted or fails; the message ends with the failing rank's last lines and the log folder.
    SettingsError
        If the folder's name cannot be used.
    """
    folder = folder.absolute()
    check_folder(folder)
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
    """Return the recorded job of a run's folder if it runs or waits.

    Raises
    ------
    JobError
        If that cannot be known from here.
    """
    job = JobRecord.load(folder)
    return job if job is not None and _is_alive(job) else None


def check_folder(folder: Path) -> None:
    """Reject names that job managers rewrite: both submitit and SLURM replace %-patterns in log paths."""
    for char, why in (("%", "SLURM replaces %-patterns in it"), ("\\", "SLURM takes it for an escape")):
        if char in str(folder):
            raise SettingsError(
                f"{folder}: a folder for jobs cannot have {char!r} in its name: {why}; rename the folder"
            )


def _run_here(command: Sequence[str], folder: Path, settings: JobSettings, name: str) -> int:
    with _lock(folder):
        job = live_job(folder)
        if job is not None:
            raise JobError(
                f"{folder}: {job.title} of this run is alive on the SLURM cluster; wait for it, or end it with "
                f"`scancel {job.job_id}`, then start again"
            )
        return local_ranks.run_ranks(command, new_folder(folder), settings, name)


def _run_on_slurm(
    command: Sequence[str], folder: Path, settings: JobSettings, name: str, results: Sequence[Path]
) -> None:
    """Attach to the run's job or submit one, and see it through; an interrupt ends the launcher, not the job."""
    try:
        _see_through(command, folder, settings, name, results)
    except KeyboardInterrupt:
        job = JobRecord.load(folder)
        if job is not None and job.ended is None:
            say(f"{job.title} goes on; the same command attaches to it, `scancel {job.job_id}` ends it")
        raise


def _see_through(
    command: Sequence[str], folder: Path, settings: JobSettings, name: str, results: Sequence[Path]
) -> None:
    with _lock(folder):
        job = _last_job(folder, name)
        attached = job is not None and _is_alive(job)
        if job is not None and attached:
            _refuse_other_work(job, command, folder)
            say(f"attached to {job.title}, logs in {job.folder}")
        elif job is not None and _has_result(job, command, results):
            say(f"{job.title} had already ended well")
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
        if not _deserves_another(job, state, failed, settings):
            rank = failed.rank if failed else 0
            log = log_file(Path(job.folder), job.job_id, rank)
            raise JobError(failure(job.title, state, failed, log, shown=rank == 0 and not attached))
        say(f"{job.title} ended{f' as {state}' if state else ''}; submitting it again, it resumes from its own state")
        job, attached = submit(command, folder, settings, name, job.submissions + 1), False


def _last_job(folder: Path, name: str) -> JobRecord | None:
    """Return the run's last job, alive or ended, also one that was never recorded; None when there never was one."""
    job = JobRecord.load(folder)
    if job is not None and _is_alive(job):
        return job
    job_id = slurm_queries.find(job_name(name, folder))
    if job_id is None or (job is not None and job.job_id == job_id):
        return job
    pickles = sorted(folder.glob(f"[0-9]*/{job_id}_submitted.pkl"))
    if pickles:
        return write_record(job_id, pickles[0].parent)
    slurm_queries.cancel(job_id)  # without its pickled call it cannot run
    return job


def _is_alive(job: JobRecord) -> bool:
    """Tell whether a recorded job still runs or waits.

    Raises
    ------
    JobError
        If that cannot be known from here: then nothing new must be started.
    """
    state = slurm_queries.state(job.job_id)
    if state is None and job.ended is None and not slurm_queries.answers():
        raise JobError(
            f"SLURM does not answer, so whether {job.title} still runs is unknown; try again later or, if it has "
            f"ended, delete {Path(job.folder).parent / FILE}"
        )
    return state is not None and state not in slurm_queries.ENDED


def _has_result(job: JobRecord, command: Sequence[str], results: Sequence[Path]) -> bool:
    """Tell whether an ended job did this very work and its files are still there."""
    if job.command != command_digest(command) or not results or not all(path.exists() for path in results):
        return False
    return rank_status.succeeded(rank_status.read_statuses(Path(job.folder), job.tasks), job.tasks)


def _refuse_other_work(job: JobRecord, command: Sequence[str], folder: Path) -> None:
    """Raise a `JobError` when a live job does something else than what is asked for now."""
    if job.command != command_digest(command):
        raise JobError(
            f"{folder}: {job.title} is alive and runs another command than this one (were settings changed?); "
            f"wait for it, or end it with `scancel {job.job_id}`, then start again"
        )


def _deserves_another(
    job: JobRecord, state: str | None, failed: rank_status.RankStatus | None, settings: JobSettings
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
    first, longest = POLL_S
    pause, told, known_at = first, dict[str, set[str]](), time.monotonic()
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
                told = _tell(job, state, reason, told)
            pause = first if busy else min(pause * 1.5, longest)
            time.sleep(pause)
    finally:
        follower.forward()


def _tell(job: JobRecord, state: str, reason: str, told: dict[str, set[str]]) -> dict[str, set[str]]:
    """Say how a job fares where that is new; return its state with the reasons that were told since it has that.

    Reasons come and go (Priority, Resources, Priority); each is reported once.
    """
    if reason in told.get(state, ()):
        return told
    say(f"{job.title} is {state.lower()}{f' ({slurm_queries.explain(reason)})' if reason else ''}")
    return {state: told.get(state, set()) | {reason}}


def _is_given_up(unknown_s: float) -> bool:
    """Tell whether SLURM has not known the job for too long: soon if it answers, late if it is away."""
    return unknown_s > (SETTLE_S if slurm_queries.answers() else SILENCE_S)


def _settle(job: JobRecord) -> None:
    """Give the ranks' status files time to arrive: a shared file system may show them late."""
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
    """Treat TERM, and the HUP of a terminal that is closed, like Ctrl-C.

    Only a second Ctrl-C interrupts again: a closed terminal may send several signals, and what is being saved by then
    must not be lost.
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

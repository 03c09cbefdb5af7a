"""Which job of a run is already there: alive, ended, or lost between sbatch and the disk."""

import json
import socket
from collections.abc import Sequence
from pathlib import Path

from cluster import local_ranks, rank_status, slurm_queries
from cluster.errors import JobError
from cluster.job_record import JobRecord, digest, job_name
from cluster.settings import JobSettings


def known(folder: Path, name: str, settings: JobSettings) -> JobRecord | None:
    """Return the run's last job, alive or ended; None when there never was one."""
    job = JobRecord.load(folder)
    if settings.cluster != "slurm" or (job is not None and job.cluster == "slurm" and is_alive(job)):
        return job
    job_id = slurm_queries.find(job_name(name, folder))
    if job_id is None or (job is not None and job.job_id == job_id):
        return job
    return _adopt(job_id, folder, name) or job


def is_alive(job: JobRecord) -> bool:
    """Tell whether a recorded job still runs or waits.

    Raises
    ------
    JobError
        If that cannot be known from here: then nothing new must be started.
    """
    if job.cluster == "slurm":
        state = slurm_queries.state(job.job_id)
        if state is None and job.ended is None and not slurm_queries.answers():
            raise JobError(f"SLURM does not answer, so whether {job.title} still runs is unknown; try again later")
        return state is not None and state not in slurm_queries.ENDED
    if job.host != socket.gethostname() and job.ended is None:
        raise JobError(
            f"{job.title} was started on {job.host}, not on this machine; start it there again or, if nothing runs "
            f"there any more, delete {Path(job.folder).parent / 'job.json'}"
        )
    return local_ranks.is_alive(job)


def has_result(job: JobRecord, command: Sequence[str], results: Sequence[Path]) -> bool:
    """Tell whether an ended job did this very work and its files are still there."""
    if job.command != digest(command) or not results or not all(path.exists() for path in results):
        return False
    return rank_status.succeeded(rank_status.read_outcomes(Path(job.folder), job.tasks), job.tasks)


def refuse_other_work(job: JobRecord, command: Sequence[str], folder: Path) -> None:
    """Raise a `JobError` when a live job does something else than what is asked for now."""
    if job.command == digest(command):
        return
    stop = f"scancel {job.job_id}" if job.cluster == "slurm" else f"kill {job.job_id}"
    raise JobError(
        f"{folder}: {job.title} is alive and runs another command than this one (were settings changed?); "
        f"wait for it, or end it with `{stop}`, then start again"
    )


def _adopt(job_id: str, folder: Path, name: str) -> JobRecord | None:
    """Record a live job whose id was never written down; without its pickled call it cannot run and is withdrawn."""
    pickles = sorted(folder.glob(f"[0-9]*/{job_id}_submitted.pkl"))
    if not pickles:
        slurm_queries.cancel(job_id)
        return None
    submission = pickles[0].parent
    request = json.loads((submission / "request.json").read_text(encoding="utf-8"))
    job = JobRecord(
        cluster="slurm",
        job_id=job_id,
        name=job_name(name, folder),
        command=digest(request["command"]),
        folder=str(submission),
        tasks=JobSettings.from_mapping(request["settings"]).tasks,
        host=socket.gethostname(),
    )
    job.save(folder)
    return job

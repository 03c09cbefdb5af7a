"""Submit one job and write down its id: `python -m cluster.submit < request.json`.

A process of its own, in a session of its own. A launcher that is killed or interrupted meanwhile takes neither the
submission nor, on one machine, the ranks with it; the record is on disk whatever happens to the launcher.
"""

import errno
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from cluster import sbatch, slurm_queries
from cluster.birth import birth
from cluster.errors import JobError
from cluster.job_record import JobRecord, digest, job_name
from cluster.settings import JobSettings
from cluster.snakemake.sbatch_retry import back_off, is_transient
from cluster.task import MARK, Task

PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
FOREVER_MIN = 60 * 24 * 365


def submit(request: dict[str, Any]) -> JobRecord:
    """Submit the requested job and return its record, which is then already on disk."""
    settings = JobSettings.from_mapping(request["settings"])
    folder, submission = Path(request["folder"]), Path(request["submission"])
    name = job_name(request["name"], folder)
    task = Task(
        tuple(request["command"]),
        str(submission),
        cpus=settings.cpus_per_task,
        devices=devices(settings, os.environ.get("CUDA_VISIBLE_DEVICES")),
        max_requeues=settings.max_requeues,
    )
    job_id = _submit_local(settings, submission, task) if settings.cluster == "local" else None
    job_id = job_id or _submit_slurm(settings, submission, name, task)
    record = JobRecord(
        cluster=settings.cluster,
        job_id=job_id,
        name=name,
        command=digest(task.command),
        folder=str(submission),
        tasks=settings.tasks,
        host=socket.gethostname(),
        created=birth(int(job_id)) if settings.cluster == "local" else None,
        submissions=int(request["submissions"]),
    )
    record.save(folder)
    return record


def devices(settings: JobSettings, visible: str | None) -> str | None:
    """Return CUDA_VISIBLE_DEVICES for the ranks: a share of what the user made visible; on SLURM what SLURM sets."""
    if settings.cluster != "local":
        return None
    available = [name for name in (visible or "").split(",") if name] if visible is not None else None
    if available is None:
        return ",".join(str(index) for index in range(settings.gpus_per_node))
    if settings.gpus_per_node > len(available):
        raise JobError(
            f"gpus_per_node={settings.gpus_per_node}, but CUDA_VISIBLE_DEVICES={visible!r} shows {len(available)}; "
            "ask for fewer or make more visible"
        )
    return ",".join(available[: settings.gpus_per_node])


def _submit_local(settings: JobSettings, submission: Path, task: Task) -> str:
    os.environ[MARK] = str(submission)  # so that all of the job is found, should its controller be killed
    executor = submitit.LocalExecutor(folder=submission)
    executor.update_parameters(
        nodes=1,
        tasks_per_node=settings.tasks_per_node,
        timeout_min=settings.timeout_min or FOREVER_MIN,
        signal_delay_s=settings.signal_delay_s,
        stderr_to_stdout=True,
    )
    return executor.submit(task).job_id


def _submit_slurm(settings: JobSettings, submission: Path, name: str, task: Task) -> str:
    executor = sbatch.Executor(folder=submission)
    executor.update_parameters(**sbatch.parameters(settings, name))
    waits = back_off()
    while True:
        try:
            return executor.submit(task).job_id
        except (FailedJobError, FailedSubmissionError) as error:
            message = str(error).strip()
            wait = next(waits, None) if is_transient(message) else None
            if wait is None:
                raise JobError(f"sbatch refused the job:\n{message}") from None
            print(
                f"sbatch failed ({message.splitlines()[-1]}); trying again in {wait:.0f} s", file=sys.stderr, flush=True
            )
            time.sleep(wait)
            # The controller may have accepted the job although its answer never came. Such a job has no pickled
            # call to run, so it is withdrawn rather than adopted.
            slurm_queries.cancel_named(name)


def main() -> None:
    """Read a request from standard input; exit code 1 with a message when the job was not submitted."""
    request = json.load(sys.stdin)
    try:
        submit(request)
    except JobError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error}; make room, or mend the folder's permissions" if error.errno in PLACE else str(error))


if __name__ == "__main__":
    main()

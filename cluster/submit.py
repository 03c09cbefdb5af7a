"""Submit one SLURM job and record its ID: the launcher starts `python -m cluster.submit FOLDER` for this.

It is a separate process in its own session: killing or interrupting the launcher does not abort the submission, and the
record is on disk whatever happens to the launcher.

submitit writes the script and pickles the call. Two things differ here: log paths are passed on sbatch's command line,
because a `#SBATCH` line cannot hold every legal path name (a newline ends it), and the job can always be requeued.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster import slurm_queries
from cluster.errors import JobError, advise
from cluster.job_record import JobRecord, command_digest, job_name, new_folder, write_json
from cluster.logs import say
from cluster.patience import Patience, pause
from cluster.rendezvous import without_enclosing_job
from cluster.settings import JobSettings
from cluster.task import Task

REQUEST = "request.json"
TIMEOUT_S = 1200.0
LOG_NAME = "%j_0_log.out"


def submit(command: Sequence[str], folder: Path, settings: JobSettings, name: str, submissions: int = 1) -> JobRecord:
    """Submit a job and return its record, which is then already on disk.

    A call of sbatch is not interrupted, because an interrupted submission could leave an unknown job. Between two calls
    an interrupt takes effect at once.
    """
    submission = new_folder(folder)
    request = {
        "command": list(command),
        "settings": settings.model_dump(),
        "name": name,
        "submissions": submissions,
    }
    write_json(submission / REQUEST, request)
    _submit_until_accepted(submission, name=job_name(name, folder))
    job = JobRecord.load(folder)
    if job is None:
        raise JobError(f"the job was submitted, but {folder} has no record of it; is the disk full?")
    say(f"submitted {job.title} with {job.tasks} task{'s' * (job.tasks > 1)}, logs in {job.folder}")
    return job


def _submit_until_accepted(submission: Path, name: str) -> None:
    """Call the worker until SLURM accepts the job; raise a `JobError` if the rejection is final."""
    patience, log = Patience(), submission / "submit.log"
    while _call_worker(submission, log) != 0:
        problem = _problem(log)
        wait = patience.next_wait(problem)
        if wait is None:
            raise JobError(f"the job could not be submitted.\n{problem}\nlogs: {submission}")
        if line := patience.report(problem, wait):
            say(line)
        pause(wait)
        # The controller may have accepted the job although its answer never arrived. Such a job has no pickled
        # call to run, so it is cancelled rather than adopted.
        slurm_queries.cancel_named(name)


def _problem(log: Path) -> str:
    """Return the worker's messages, each line once: they quote sbatch's own."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    text = "\n".join(list(dict.fromkeys(reversed(lines)))[::-1])
    return text or "The reason could not be recorded: is the disk full? If so, free some space and start again"


def _call_worker(submission: Path, log: Path) -> int:
    """Run this module as a program, to its end even if interrupted; return its exit code."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.submit", str(submission)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=without_enclosing_job(os.environ),
            start_new_session=True,
        )
    try:
        return process.wait(timeout=TIMEOUT_S)
    except KeyboardInterrupt:
        process.wait(timeout=TIMEOUT_S)
        raise
    except subprocess.TimeoutExpired:
        raise JobError(
            f"sbatch has not answered for {TIMEOUT_S:.0f} s, in process {process.pid}, and may still submit the job; "
            f"wait for it, or end it with `kill {process.pid}`, then start again"
        ) from None


def write_record(job_id: str, submission: Path) -> JobRecord:
    """Record the job that was submitted for the request in a submission's folder."""
    request = json.loads((submission / REQUEST).read_text(encoding="utf-8"))
    job = JobRecord(
        job_id=job_id,
        command=command_digest(request["command"]),
        folder=str(submission),
        tasks=JobSettings.from_mapping(request["settings"]).tasks,
        submissions=request["submissions"],
    )
    job.save(submission.parent)
    return job


def main() -> None:
    """Submit the request in a folder; exit with code 1 and a message on failure."""
    submission = Path(sys.argv[1])
    try:
        write_record(_submit_request(submission), submission)
    except JobError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(advise(error))


def _submit_request(submission: Path) -> str:
    """Submit the request in a folder; return the job's ID."""
    from submitit import SlurmExecutor  # only this process needs it, and an installation without `train` lacks it
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    class Executor(SlurmExecutor):
        """submitit's SLURM executor with the log path on sbatch's command line."""

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            return command_line(Path(self.folder), submission_file_path, self.parameters.get("account"))

    request = json.loads((submission / REQUEST).read_text(encoding="utf-8"))
    settings = JobSettings.from_mapping(request["settings"])
    task = Task(
        tuple(request["command"]),
        str(submission),
        settings.cpus_per_task,
        settings.max_requeues,
        str(settings.gpus),
    )
    executor = Executor(folder=submission)
    executor.update_parameters(**parameters(settings, job_name(request["name"], submission.parent)))
    try:
        return executor.submit(task).job_id
    except (FailedJobError, FailedSubmissionError) as error:
        raise JobError(f"sbatch rejected the job:\n{str(error).strip()}") from None


def parameters(settings: JobSettings, name: str) -> dict[str, Any]:
    """Return the parameters for submitit's SLURM executor, under its names.

    `wckey` is switched off because clusters that track workload keys reject unknown ones. srun ends the other ranks
    when one dies, appends to the log after a restart, and passes the number of cores on.
    """
    wanted = {
        "job_name": name,
        "nodes": settings.nodes,
        "ntasks_per_node": settings.tasks_per_node,
        "cpus_per_task": settings.cpus_per_task,
        "gpus_per_node": settings.gpus_per_node or None,
        "mem": None if settings.mem_gb is None else f"{round(settings.mem_gb * 1024)}M",
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
    }
    return {
        **{key: value for key, value in wanted.items() if value is not None},
        "time": settings.timeout_min,
        "wckey": None,
        "signal_delay_s": settings.signal_delay_s,
        "stderr_to_stdout": True,
        "srun_args": ["--kill-on-bad-exit=1", "--open-mode=append", f"--cpus-per-task={settings.cpus_per_task}"],
        "additional_parameters": {"requeue": True, "output": "/dev/null", **settings.extra},
    }


def command_line(folder: Path, script_file: Path, account: str | None = None) -> list[str]:
    """Return the sbatch command; it names the log of the batch shell, which receives srun's own messages.

    On the command line an account takes precedence over the variable SBATCH_ACCOUNT; in the script it would not.
    """
    log = str(folder / LOG_NAME)
    return ["sbatch", f"--output={log}", *([f"--account={account}"] if account else []), str(script_file)]


if __name__ == "__main__":
    main()

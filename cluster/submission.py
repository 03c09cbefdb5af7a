"""The launcher's side of a submission: hand the request to `cluster.submit` and read the record that it wrote."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.errors import JobError
from cluster.job_record import JobRecord
from cluster.logs import say
from cluster.sbatch import scrubbed
from cluster.settings import JobSettings

TIMEOUT_S = 1200.0


def submit(
    command: Sequence[str], folder: Path, settings: JobSettings, name: str, submissions: int = 1
) -> tuple[JobRecord, bool]:
    """Submit a job; return its record, which is on disk by then, and whether the user interrupted meanwhile.

    An interrupt waits for the submission to end: half a submission would be a job that nobody knows of.
    """
    submission = _new_folder(folder)
    request = {
        "command": list(command),
        "folder": str(folder),
        "submission": str(submission),
        "settings": settings.model_dump(),
        "name": name,
        "submissions": submissions,
    }
    text = json.dumps(request, indent=1)
    (submission / "request.json").write_text(text, encoding="utf-8")
    code, interrupted = _call(text, submission / "submit.log")
    if code != 0:
        said = (submission / "submit.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        problem = "\n".join(list(dict.fromkeys(reversed(said)))[::-1])  # the message quotes sbatch's own lines
        problem = problem or "Why could not be written down: is the disk full? Then make room and start again"
        raise JobError(f"the job could not be submitted.\n{problem}\nlogs: {submission}")
    job = JobRecord.load(folder)
    if job is None:
        raise JobError(f"the job was submitted, but {folder} has no record of it; is the disk full?")
    say(f"submitted {job.title} with {job.tasks} task{'s' * (job.tasks > 1)}, logs in {job.folder}")
    return job, interrupted


def _new_folder(folder: Path) -> Path:
    numbers = [int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    submission = folder / f"{max(numbers, default=0) + 1:03d}"
    submission.mkdir()
    return submission


def _call(request: str, log: Path) -> tuple[int, bool]:
    """Run `cluster.submit` to its end whatever happens; return its exit code and whether there was an interrupt."""
    interrupted = False
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.submit"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=scrubbed(dict(os.environ)),
            text=True,
            start_new_session=True,
        )
    try:
        process.communicate(request, timeout=TIMEOUT_S)
    except KeyboardInterrupt:
        interrupted = True
        process.communicate(timeout=TIMEOUT_S)
    return process.returncode, interrupted

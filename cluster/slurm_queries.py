"""Ask SLURM about jobs, with and without accounting.

`squeue` comes first: it needs no accounting and knows a job until minutes after its end. `sacct` is asked only when
squeue has forgotten the job. Without accounting it fails, and the answer is None: unknown.
"""

import os
import subprocess
from collections import Counter
from collections.abc import Sequence

from cluster.rendezvous import without_enclosing_job

ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
"""Final states. Any other word means a live job: new releases of SLURM add names for waiting."""

BLAMELESS = frozenset({"BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "TIMEOUT"})
"""Final states that are not the command's fault: it is submitted again and resumes from its checkpoint."""

HOPELESS = {
    "PartitionTimeLimit": "it asks for more time than its partition allows and will not start as it is",
    "PartitionNodeLimit": "it asks for more nodes than its partition allows and will not start as it is",
    "PartitionConfig": "it asks for something that its partition does not allow and will not start as it is",
    "PartitionDown": "its partition is closed until an administrator opens it",
    "PartitionInactive": "its partition is closed until an administrator opens it",
    "InvalidAccount": "its account is no longer valid",
    "InvalidQOS": "its QOS is no longer valid",
    "AssocMaxWallDurationPerJobLimit": "it asks for more time than its account allows and will not start as it is",
    "QOSMaxWallDurationPerJobLimit": "it asks for more time than its QOS allows and will not start as it is",
}
"""Reasons for which a job may wait forever; SLURM accepts such jobs unless EnforcePartLimits is set."""

QUERY_TIMEOUT_S = 60.0


def state(job_id: str) -> str | None:
    """Return SLURM's name for the job's state; None if SLURM does not answer or does not know the job."""
    return state_and_reason(job_id)[0]


def state_and_reason(job_id: str) -> tuple[str | None, str]:
    """Return the job's state as `state` does, and the reason if it is pending: Resources, PartitionTimeLimit, ..."""
    words = (_run(["squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T %r"]) or "").split()
    if words:
        return words[0], words[1] if words[0] == "PENDING" and words[1:] not in ([], ["None"]) else ""
    return _first_word(["sacct", "-X", "-n", "-P", "-D", "-j", job_id, "-o", "State"], last=True), ""


def waiting(name: str) -> dict[str, int]:
    """Return how many of our jobs with this name are pending, by reason."""
    listed = _run(["squeue", "-h", "--me", "-t", "PENDING", "-r", "-n", name, "-o", "%r"]) or ""
    return dict(Counter(line.strip() for line in listed.splitlines() if line.strip() != "None"))


def time_limits() -> dict[str, str]:
    """Return the time limit of each partition, as SLURM writes it; the name of the default partition ends in `*`."""
    listed = _run(["sinfo", "-h", "-o", "%P|%l"]) or ""
    return dict(line.strip().split("|", 1) for line in listed.splitlines() if "|" in line)


def explain(reason: str) -> str:
    """Return a reason for waiting, with an explanation if waiting alone will not help."""
    return f"{reason}: {HOPELESS[reason]}" if reason in HOPELESS else reason


def answers() -> bool:
    """Return whether the controller answers at all; only then has an unknown job ended."""
    return _run(["squeue", "-h", "-t", "all", "-j", "1", "-o", "%T"]) is not None or (
        _run(["sinfo", "-h", "-o", "%P"]) is not None
    )


def find(name: str, comment: str | None = None) -> str | None:
    """Find a job whose ID is unknown: return the ID of our newest live job with this name (and comment, if given)."""
    listed = _run(["squeue", "-h", "--me", "-n", name, "-o", "%F|%T|%k"]) or ""
    rows = [line.split("|", 2) for line in listed.splitlines()]
    ids = [row[0] for row in rows if row[1] not in ENDED and comment in (None, row[2])]
    return max(ids, key=int, default=None)


def cancel_named(name: str) -> None:
    """Cancel our live jobs with exactly this name."""
    _run(["scancel", "--me", "-n", name])


def cancel(job_id: str) -> None:
    """Cancel one job."""
    _run(["scancel", job_id])


def _first_word(command: Sequence[str], *, last: bool = False) -> str | None:
    lines = (_run(command) or "").splitlines()
    words = lines[-1 if last else 0].split() if lines else []
    return words[0] if words else None


def _run(command: Sequence[str]) -> str | None:
    """Run a SLURM command and return its output; None if it is missing, fails or hangs."""
    environment = without_enclosing_job(os.environ)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=False, env=environment
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

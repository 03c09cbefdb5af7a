"""Asking SLURM about jobs, with and without accounting.

`squeue` first: it needs no accounting and knows a job until minutes after its end. `sacct` only when squeue has
forgotten the job; where accounting is off it fails, and the answer is None: unknown.
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
"""States after which nothing more happens. Every other word is a live job: new releases invent names for waiting."""

BLAMELESS = frozenset({"BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "TIMEOUT"})
"""Ends that say nothing against the command: submitting it again is right, it resumes from its checkpoint."""

HOPELESS = {
    "PartitionTimeLimit": "it asks for more time than its partition allows and will not start as it is",
    "PartitionNodeLimit": "it asks for more nodes than its partition allows and will not start as it is",
    "PartitionConfig": "it asks for what its partition does not allow and will not start as it is",
    "PartitionDown": "its partition is closed until an administrator opens it",
    "PartitionInactive": "its partition is closed until an administrator opens it",
    "InvalidAccount": "its account is not valid any more",
    "InvalidQOS": "its QOS is not valid any more",
    "AssocMaxWallDurationPerJobLimit": "it asks for more time than its account allows and will not start as it is",
    "QOSMaxWallDurationPerJobLimit": "it asks for more time than its QOS allows and will not start as it is",
}
"""Reasons for which a job may wait forever; SLURM accepts such jobs unless it is told not to (EnforcePartLimits)."""

QUERY_TIMEOUT_S = 60.0


def state(job_id: str) -> str | None:
    """Return the job's state in SLURM's words; None when SLURM does not answer or does not know the job."""
    return state_and_reason(job_id)[0]


def state_and_reason(job_id: str) -> tuple[str | None, str]:
    """Return the job's state as `state` does, and why it waits if it does: Resources, PartitionTimeLimit, ..."""
    words = (_run(["squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T %r"]) or "").split()
    if words:
        return words[0], words[1] if words[0] == "PENDING" and words[1:] not in ([], ["None"]) else ""
    return _first_word(["sacct", "-X", "-n", "-P", "-D", "-j", job_id, "-o", "State"], last=True), ""


def waiting(name: str) -> dict[str, int]:
    """Return how many jobs of ours with this name wait in the queue, by the reason."""
    listed = _run(["squeue", "-h", "--me", "-t", "PENDING", "-r", "-n", name, "-o", "%r"]) or ""
    return dict(Counter(line.strip() for line in listed.splitlines() if line.strip() != "None"))


def time_limits() -> dict[str, str]:
    """Return the longest time of a job by partition, as SLURM writes it; the name of the default one ends in `*`."""
    listed = _run(["sinfo", "-h", "-o", "%P|%l"]) or ""
    return dict(line.strip().split("|", 1) for line in listed.splitlines() if "|" in line)


def explain(reason: str) -> str:
    """Return a reason to wait with what it means, where waiting alone will not help."""
    return f"{reason}: {HOPELESS[reason]}" if reason in HOPELESS else reason


def answers() -> bool:
    """Tell whether the controller answers at all; an unknown job is only over when it does."""
    return _run(["squeue", "-h", "-t", "all", "-j", "1", "-o", "%T"]) is not None or (
        _run(["sinfo", "-h", "-o", "%P"]) is not None
    )


def find(name: str, comment: str | None = None) -> str | None:
    """Return the id of the newest live job of ours with this name, and comment if given: one of unknown id."""
    listed = _run(["squeue", "-h", "--me", "-n", name, "-o", "%F|%T|%k"]) or ""
    rows = [line.split("|", 2) for line in listed.splitlines()]
    ids = [row[0] for row in rows if row[1] not in ENDED and comment in (None, row[2])]
    return max(ids, key=int, default=None)


def cancel_named(name: str) -> None:
    """Cancel the live jobs of ours with exactly this name."""
    _run(["scancel", "--me", "-n", name])


def cancel(job_id: str) -> None:
    """Cancel one job."""
    _run(["scancel", job_id])


def _first_word(command: Sequence[str], *, last: bool = False) -> str | None:
    lines = (_run(command) or "").splitlines()
    words = lines[-1 if last else 0].split() if lines else []
    return words[0] if words else None


def _run(command: Sequence[str]) -> str | None:
    """Run a SLURM command; None when it is missing, fails or hangs."""
    environment = without_enclosing_job(os.environ)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=False, env=environment
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

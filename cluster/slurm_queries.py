"""Asking SLURM about jobs, with and without accounting.

`squeue` first: it needs no accounting and knows a job until minutes after its end. `sacct` only when squeue has
forgotten the job; where accounting is off it fails, and the answer is None: unknown.
"""

import subprocess
from collections.abc import Iterator, Sequence

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

QUERY_TIMEOUT_S = 60.0

RETRY_S = 600.0
"""How long a controller that does not answer is asked again."""

TRANSIENT = (
    "timed out",
    "unable to contact slurm controller",
    "connection refused",
    "connection reset",
    "resource temporarily unavailable",
    "zero bytes were transmitted",
    "transport endpoint is not connected",
    "slurm temporarily unable",
    "unexpected message received",
    "job submit limit",
    "submit job limit",
)
"""Parts of sbatch's messages after which trying again may help; any other refusal is final."""


def state(job_id: str) -> str | None:
    """Return the job's state in SLURM's words; None when SLURM does not answer or does not know the job."""
    word = _first_word(["squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T"])
    return word or _first_word(["sacct", "-X", "-n", "-P", "-D", "-j", job_id, "-o", "State"], last=True)


def answers() -> bool:
    """Tell whether the controller answers at all; an unknown job is only over when it does."""
    return _run(["squeue", "-h", "-t", "all", "-j", "1", "-o", "%T"]) is not None or (
        _run(["sinfo", "-h", "-o", "%P"]) is not None
    )


def find(name: str, comment: str | None = None) -> str | None:
    """Return the id of the newest live job of ours with this name, and comment if given: one of unknown id."""
    listed = _run(["squeue", "-h", "--me", "-n", name, "-o", "%A|%T|%k"]) or ""
    rows = [line.split("|", 2) for line in listed.splitlines()]
    ids = [row[0] for row in rows if row[1] not in ENDED and comment in (None, row[2])]
    return max(ids, key=int, default=None)


def cancel_named(name: str) -> None:
    """Cancel the live jobs of ours with exactly this name."""
    _run(["scancel", "--me", "-n", name])


def cancel(job_id: str) -> None:
    """Cancel one job."""
    _run(["scancel", job_id])


def is_transient(message: str) -> bool:
    """Tell whether an sbatch message speaks of a controller that is busy or away."""
    return any(part in message.lower() for part in TRANSIENT)


def back_off(total_s: float = RETRY_S) -> Iterator[float]:
    """Yield seconds to wait: 1, 2, 4, ... up to a minute, `total_s` in all."""
    wait, spent = 1.0, 0.0
    while spent < total_s:
        yield wait
        spent += wait
        wait = min(2 * wait, 60.0)


def _first_word(command: Sequence[str], *, last: bool = False) -> str | None:
    lines = (_run(command) or "").splitlines()
    words = lines[-1 if last else 0].split() if lines else []
    return words[0] if words else None


def _run(command: Sequence[str]) -> str | None:
    """Run a SLURM command; None when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

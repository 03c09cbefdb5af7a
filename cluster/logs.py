"""A job's log files: follow one while it grows, and build the error message with a failed job's last lines."""

import signal
import sys
from pathlib import Path

from cluster.rank_status import RankStatus

NOISE = ("submitit ",)
"""Prefixes of submitit's own log lines."""

TAIL_BYTES = 65_536

HINTS = {
    "CANCELLED": "It was cancelled; run the same command again to resume.",
    "DEADLINE": "The job's deadline passed before it could end.",
    "OUT_OF_MEMORY": "It used more memory than it requested: raise mem_gb, or use a smaller patch or batch.",
    "TIMEOUT": "The time limit ended it before it could save: raise timeout_min or signal_delay_s.",
    "NODE_FAIL": "Nodes failed more often than max_requeues allows.",
}
"""What to do, by the state in which SLURM ended the job."""


def log_file(folder: Path, job_id: str, rank: int) -> Path:
    """Return the log of one rank, standard output and error together."""
    return folder / f"{job_id}_{rank}_log.out"


class Follower:
    """Copies whole lines that are appended to a log file to this process's standard output."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self.path = path
        self.position = path.stat().st_size if from_end and path.exists() else 0

    def forward(self) -> bool:
        """Print the lines that were completed since the last call; return whether there were any."""
        try:
            with self.path.open("rb") as log:
                log.seek(self.position)
                fresh = log.read()
        except FileNotFoundError:
            return False
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self.position += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            if not line.startswith(NOISE):
                say(line)
        return bool(whole)


def say(line: str) -> None:
    """Print a line; a reader that has gone away must not stop the launcher."""
    try:
        print(line, flush=True)
    except OSError:
        sys.stdout = None


def failure(title: str, why: str | None, rank: RankStatus | None, log: Path, *, shown: bool) -> str:
    """Return the message of a `JobError`: which rank failed first, how, its last lines, where to find the rest.

    Parameters
    ----------
    title
        Name of the job.
    why
        How the job ended, in SLURM's or the launcher's words, if this is known.
    rank
        The rank that failed first, if any did.
    log
        Its log, or that of rank 0.
    shown
        Whether this log was followed, so that its last lines have just been printed.
    """
    lines = [f"{title} failed" + (f" ({why})" if why else "") + (f": {_ending(rank)}" if rank else ".")]
    if why in HINTS:
        lines.append(HINTS[why])
    elif rank is not None and rank.exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        lines.append("Killed from outside: usually the machine ran out of memory. Raise mem_gb, or use less memory.")
    tail = [] if shown else _last_lines(log)
    if tail:
        lines += [f"last lines of process {rank.rank if rank else 0}:", *(f"  {line}" for line in tail)]
    return "\n".join([*lines, f"logs: {log.parent}"])


def _ending(rank: RankStatus) -> str:
    code = rank.exit_code or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"process {rank.rank} on {rank.host} {how}."


def _last_lines(path: Path, count: int = 30) -> list[str]:
    """Return the last lines of a log without submitit's own; empty if there is no log."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if not line.startswith(NOISE)][-count:]

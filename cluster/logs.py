"""A job's log files: following one while it grows, and its last lines for an error message."""

import sys
from pathlib import Path

NOISE = ("submitit ",)
"""Starts of lines that submitit writes for itself."""

TAIL_BYTES = 65_536


def log_file(folder: Path, job_id: str, rank: int) -> Path:
    """Return the log of one rank, standard output and error together."""
    return folder / f"{job_id}_{rank}_log.out"


class Follower:
    """Copies what is appended to a log file to this process' standard output, whole lines only."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self.path = path
        self.position = path.stat().st_size if from_end and path.exists() else 0

    def forward(self) -> bool:
        """Print the lines that were completed since the last call; tell whether there were any."""
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


def last_lines(path: Path, count: int = 30) -> list[str]:
    """Return the last lines of a log without submitit's own; empty when there is no log."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if not line.startswith(NOISE)][-count:]

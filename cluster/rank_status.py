"""Status files of the ranks of a SLURM job: a small one for each rank, and markers that concern all of them.

Files instead of pickled results: people can read them too, they can be read while a rank is still running, and a rank
that is killed leaves its last state.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.job_record import write_json

REQUEUES = "requeues.tsv"


@dataclass(frozen=True)
class RankStatus:
    """State of one rank: `exit_code` is None while its command runs, negative when a signal ended it."""

    rank: int
    host: str
    attempt: int
    exit_code: int | None = None
    ended: float | None = None

    def save(self, folder: Path) -> None:
        """Write the state atomically."""
        write_json(folder / f"rank-{self.rank}.json", asdict(self))


def read_statuses(folder: Path, tasks: int) -> list[RankStatus]:
    """Return the states of the ranks that have written one, by rank."""
    statuses = []
    for rank in range(tasks):
        path = folder / f"rank-{rank}.json"
        if path.exists():
            statuses.append(RankStatus(**json.loads(path.read_text(encoding="utf-8"))))
    return statuses


def succeeded(statuses: Sequence[RankStatus], tasks: int) -> bool:
    """Return whether every rank has succeeded."""
    return len(statuses) == tasks and all(status.exit_code == 0 for status in statuses)


def first_failure(folder: Path, statuses: Sequence[RankStatus]) -> RankStatus | None:
    """Return the rank that failed first in the last attempt; the others were ended because of it."""
    attempt = max((status.attempt for status in statuses), default=0)
    failed = [status for status in statuses if status.attempt == attempt and status.exit_code not in (0, None)]
    marked = failed_rank(folder, attempt)
    return next((status for status in failed if status.rank == marked), None) or min(
        failed, key=lambda status: status.ended or 0.0, default=None
    )


def mark_failed(folder: Path, attempt: int, rank: int) -> None:
    """Record that this rank failed, unless another one already did; the peers watch for this file."""
    try:
        handle = os.open(folder / f"failed-{attempt}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    with os.fdopen(handle, "w") as mark:
        mark.write(str(rank))


def failed_rank(folder: Path, attempt: int) -> int | None:
    """Return the rank that was the first to record its failure in this attempt, if any did."""
    try:
        text = (folder / f"failed-{attempt}").read_text()
    except FileNotFoundError:
        return None
    return int(text) if text else -1


def count_requeues(folder: Path) -> int:
    """Return how often the command asked to be started again in this submission."""
    try:
        return len((folder / REQUEUES).read_text().splitlines())
    except FileNotFoundError:
        return 0


def note_requeue(folder: Path, attempt: int) -> None:
    """Record that the command asked to be started again."""
    with (folder / REQUEUES).open("a") as log:
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')}\tattempt {attempt} asked to be started again\n")

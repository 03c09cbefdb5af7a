"""When to retry sbatch, and an interruptible wait until then.

A final rejection by SLURM is reported at once. If the controller is busy or unreachable, sbatch is retried for ten
minutes. A limit on jobs in the queue no longer applies once jobs end, perhaps only after days, so sbatch is retried
until then.
"""

import os
import re
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path

RETRY_S = 600.0
"""How long sbatch is retried while the controller does not answer."""

LONGEST_S = 60.0
"""Longest time between two attempts."""

SNAKEMAKE = "CLUSTER_SNAKEMAKE"
"""Environment variable: process ID of the Snakemake that waits for the answer, if one does."""

STOP = "CLUSTER_STOP"
"""Environment variable: a file that this Snakemake creates when it is asked to end."""

AWAY = (
    "timed out",
    "unable to contact slurm controller",
    "connection refused",
    "connection reset",
    "resource temporarily unavailable",
    "zero bytes were transmitted",
    "transport endpoint is not connected",
    "slurm temporarily unable",
    "unexpected message received",
)
"""Parts of sbatch's messages which show that the controller is busy or unreachable."""

SUBMIT_LIMIT = re.compile(r"\b(?:Assoc|QOS)\w*Submit\w*\b")
"""SLURM's names for limits on jobs in the queue. The sentence that follows the name is the same for every limit."""


def reason(message: str) -> str:
    """Return the line of sbatch's message that gives the reason: its first error."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    first = next((line for line in lines if "error:" in line), lines[0] if lines else "no message")
    return first.removeprefix("sbatch: ").removeprefix("error: ")


def is_away(message: str) -> bool:
    """Return whether an sbatch message means that the controller is busy or unreachable."""
    return any(part in reason(message).lower() for part in AWAY)


def is_submit_limit(message: str) -> bool:
    """Return whether an sbatch message means that SLURM accepts no more jobs of this user for now."""
    return SUBMIT_LIMIT.search(reason(message)) is not None


class Patience:
    """Decides how long one submission is retried, and what is reported to the user meanwhile."""

    def __init__(self) -> None:
        self._away, self._limit = back_off(1.0, RETRY_S), back_off(15.0, inf)
        self._last_s = 0.0

    def next_wait(self, message: str) -> float | None:
        """Return the seconds after which to retry sbatch; None if its rejection is final."""
        if is_submit_limit(message):
            return next(self._limit)
        return next(self._away, None) if is_away(message) else None

    def report(self, message: str, wait_s: float) -> str | None:
        """Return a line about a wait; None if it would only repeat the last one."""
        if wait_s == self._last_s:
            return None
        self._last_s = wait_s
        why = (
            "SLURM accepts no more of your jobs for now" if is_submit_limit(message) else "SLURM did not accept the job"
        )
        again = time.strftime("%H:%M:%S", time.localtime(time.time() + wait_s))
        then = ", then every minute" if wait_s == LONGEST_S else ""
        return f"{why} ({reason(message)}); next attempt at {again}{then}"


def back_off(first_s: float, total_s: float) -> Iterator[float]:
    """Yield seconds to wait: `first_s`, twice that, ... up to a minute, `total_s` in total."""
    wait, spent = first_s, 0.0
    while spent < total_s:
        yield wait
        spent += wait
        wait = min(2 * wait, LONGEST_S)


def pause(seconds: float) -> None:
    """Sleep; raise `KeyboardInterrupt` if the Snakemake that waits for this is asked to end or no longer exists."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if _is_stopped():
            raise KeyboardInterrupt
        time.sleep(min(left, 0.5))


def _is_stopped() -> bool:
    snakemake, stop = os.environ.get(SNAKEMAKE), os.environ.get(STOP)
    return (stop is not None and Path(stop).exists()) or (
        snakemake is not None and not Path("/proc", snakemake).exists()
    )

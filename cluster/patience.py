"""When sbatch is asked again, and waiting until then in a way that can be ended.

What SLURM refuses for good is reported at once. A controller that is busy or away is asked again for ten minutes. A
limit on jobs in the queue passes when jobs end, be it after days, so that is waited for without end.
"""

import os
import re
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path

RETRY_S = 600.0
"""How long a controller that does not answer is asked again."""

LONGEST_S = 60.0
"""Longest time between two attempts."""

SNAKEMAKE = "CLUSTER_SNAKEMAKE"
"""Environment variable: process of the Snakemake that waits for the answer, if one does."""

STOP = "CLUSTER_STOP"
"""Environment variable: a file that this Snakemake makes when it was told to end."""

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
"""Parts of sbatch's messages that speak of a controller that is busy or away."""

SUBMIT_LIMIT = re.compile(r"\b(?:Assoc|QOS)\w*Submit\w*\b")
"""SLURM's names for limits on jobs in the queue. Its sentence after the name is the same for every limit."""


def reason(message: str) -> str:
    """Return the line of sbatch that says why: its first error."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    first = next((line for line in lines if "error:" in line), lines[0] if lines else "no message")
    return first.removeprefix("sbatch: ").removeprefix("error: ")


def is_away(message: str) -> bool:
    """Tell whether an sbatch message speaks of a controller that is busy or away."""
    return any(part in reason(message).lower() for part in AWAY)


def is_submit_limit(message: str) -> bool:
    """Tell whether sbatch takes no more jobs of the user for now."""
    return SUBMIT_LIMIT.search(reason(message)) is not None


class Patience:
    """How long one submission is asked for again, and what the user is told meanwhile."""

    def __init__(self) -> None:
        self._away, self._limit = back_off(1.0, RETRY_S), back_off(15.0, inf)
        self._last_s = 0.0

    def next_wait(self, message: str) -> float | None:
        """Return the seconds after which sbatch should be asked again; None when its refusal is final."""
        if is_submit_limit(message):
            return next(self._limit)
        return next(self._away, None) if is_away(message) else None

    def tell(self, message: str, wait_s: float) -> str | None:
        """Return a line about a wait; None where it would say the same as the last."""
        if wait_s == self._last_s:
            return None
        self._last_s = wait_s
        why = "SLURM takes no more jobs of yours for now" if is_submit_limit(message) else "SLURM does not take the job"
        again = time.strftime("%H:%M:%S", time.localtime(time.time() + wait_s))
        then = ", then every minute" if wait_s == LONGEST_S else ""
        return f"{why} ({reason(message)}); asked again at {again}{then}"


def back_off(first_s: float, total_s: float) -> Iterator[float]:
    """Yield seconds to wait: `first_s`, twice that, ... up to a minute, `total_s` in all."""
    wait, spent = first_s, 0.0
    while spent < total_s:
        yield wait
        spent += wait
        wait = min(2 * wait, LONGEST_S)


def pause(seconds: float) -> None:
    """Sleep; ends like Ctrl-C when the Snakemake that waits for this was told to end, or is no more."""
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

"""Asking sbatch again while the controller is busy or away.

The launcher of a training does so by itself. Snakemake's executor does not: one refused call is a failed job. So the
workflow puts a `sbatch` of its own in front of the real one (`cluster.snakemake.wrappers`), which runs this module.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from cluster import slurm_queries
from cluster.snakemake import wrappers

PATIENCE_S = 600.0
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


def is_transient(message: str) -> bool:
    """Tell whether an sbatch message speaks of a controller that is busy or away."""
    return any(part in message.lower() for part in TRANSIENT)


def back_off(total_s: float = PATIENCE_S) -> Iterator[float]:
    """Yield seconds to wait: 1, 2, 4, ... up to a minute, `total_s` in all."""
    wait, spent = 1.0, 0.0
    while spent < total_s:
        yield wait
        spent += wait
        wait = min(2 * wait, 60.0)


def submit(arguments: Sequence[str], sleep: Callable[[float], None] = time.sleep) -> tuple[int, str, str]:
    """Call the real sbatch until it accepts the job, refuses it for good, or patience ends.

    A controller may have accepted the job although its answer never came. The executor's jobs are told apart by their
    name and comment together; one that is in the queue is taken as the answer.

    Returns
    -------
    tuple
        Exit code, standard output and standard error of the last call.
    """
    name, comment = _option(arguments, "--job-name"), _option(arguments, "--comment")
    waits = back_off()
    while True:
        done = subprocess.run([wrappers.real("sbatch"), *arguments], capture_output=True, text=True, check=False)
        wait = next(waits, None) if done.returncode and is_transient(done.stderr) else None
        if wait is None or not (name and comment):
            return done.returncode, done.stdout, done.stderr
        sleep(wait)
        job_id = slurm_queries.find(name, comment)
        if job_id is not None:
            return 0, f"{job_id}\n", ""


def _option(arguments: Sequence[str], name: str) -> str | None:
    return next((value for key, value in pairwise(arguments) if key == name), None)


def main() -> None:
    """Be sbatch."""
    code, out, err = submit(sys.argv[1:])
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)


if __name__ == "__main__":
    main()

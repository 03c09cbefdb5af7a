"""Retry sbatch while the controller is busy or away.

The launcher of a training does so by itself. For Snakemake's executor one call that fails is a failed job
(snakemake/snakemake-executor-plugin-slurm#313, snakemake/snakemake#1789), so a wrapper script calls this module instead
(`cluster.snakemake.wrappers`).
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from cluster import slurm_queries
from cluster.snakemake import wrappers


def call_sbatch(arguments: Sequence[str], sleep: Callable[[float], None] = time.sleep) -> tuple[int, str, str]:
    """Call the real sbatch until it accepts the job, refuses it for good, or the time for retries is up.

    A controller may have accepted the job although its answer never came. The executor's jobs are identified by their
    name and comment together; one that is in the queue is taken as the answer.

    Returns
    -------
    tuple
        Exit code, standard output and standard error of the last call.
    """
    name, comment = _option(arguments, "--job-name"), _option(arguments, "--comment")
    waits = slurm_queries.back_off()
    while True:
        done = subprocess.run([wrappers.real("sbatch"), *arguments], capture_output=True, text=True, check=False)
        wait = next(waits, None) if done.returncode and slurm_queries.is_transient(done.stderr) else None
        if wait is None or not (name and comment):
            return done.returncode, done.stdout, done.stderr
        sleep(wait)
        job_id = slurm_queries.find(name, comment)
        if job_id is not None:
            return 0, f"{job_id}\n", ""


def _option(arguments: Sequence[str], name: str) -> str | None:
    return next((value for key, value in pairwise(arguments) if key == name), None)


def main() -> None:
    """Stand in for sbatch."""
    code, out, err = call_sbatch(sys.argv[1:])
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)


if __name__ == "__main__":
    main()

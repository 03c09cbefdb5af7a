"""Retry sbatch while the controller is busy or unreachable.

The launcher of a training retries on its own. For Snakemake's executor, a single failed call means a failed job
(snakemake/snakemake-executor-plugin-slurm#313, snakemake/snakemake#1789), so a wrapper script calls this module instead
(`cluster.snakemake.wrappers`).
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

from cluster import slurm_queries
from cluster.patience import Patience, pause
from cluster.rendezvous import without_enclosing_job
from cluster.snakemake import wrappers
from cluster.snakemake.watch import note


def call_sbatch(
    arguments: Sequence[str], sleep: Callable[[float], None] = pause, report: Callable[[str], None] = note
) -> tuple[int, str, str]:
    """Call the real sbatch until it accepts the job or its rejection is final.

    A controller may have accepted the job although its answer never arrived. The executor's jobs are identified by name
    and comment together; if such a job is in the queue, its ID is returned as the answer.

    Returns
    -------
    tuple
        Exit code, standard output and standard error of the last call.
    """
    name, comment = _option(arguments, "--job-name"), _option(arguments, "--comment")
    command, environment, patience = (
        [wrappers.real("sbatch"), *arguments],
        without_enclosing_job(os.environ),
        Patience(),
    )
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        wait = patience.next_wait(done.stderr) if done.returncode else None
        if wait is None or not (name and comment):
            return done.returncode, done.stdout, done.stderr
        if line := patience.report(done.stderr, wait):
            report(f"{comment}: {line}")
        sleep(wait)
        job_id = slurm_queries.find(name, comment)
        if job_id is not None:
            return 0, f"{job_id}\n", ""


def _option(arguments: Sequence[str], name: str) -> str | None:
    return next((value for key, value in pairwise(arguments) if key == name), None)


def main() -> None:
    """Stand in for sbatch."""
    try:
        code, out, err = call_sbatch(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit("stopped while waiting for SLURM to accept the job")
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)


if __name__ == "__main__":
    main()

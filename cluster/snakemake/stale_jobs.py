"""Jobs that a killed Snakemake left in the queue: the executor plugin never finds them again, so they are cancelled.

Otherwise the next Snakemake submits the same work beside them, and two jobs write the same files. Training jobs are not
concerned: their names are their own, and their launcher attaches to them.
"""

import re
import subprocess
from pathlib import Path

from cluster import slurm_queries
from cluster.errors import JobError
from cluster.waiting import wait_until

GONE_S = 120.0
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def cancel(prefix: str, folder: Path) -> int:
    """Cancel the user's jobs named `prefix_UUID` that were submitted from `folder`, and wait until they are gone.

    To be called only when nothing that submits such jobs is alive in the folder; Snakemake's lock makes sure of that.

    Returns
    -------
    int
        How many jobs were cancelled; 0 where there is no SLURM.

    Raises
    ------
    JobError
        If they do not go away: starting now would mean two writers.
    """
    jobs = _find(prefix, folder)
    if not jobs:
        return 0
    subprocess.run(["scancel", *jobs], capture_output=True, check=False)
    if not wait_until(lambda: not _find(prefix, folder), GONE_S, 0.5):
        left = ", ".join(_find(prefix, folder))
        raise JobError(f"jobs of an earlier Snakemake do not end: {left}; end them, then start again")
    return len(jobs)


def _find(prefix: str, folder: Path) -> list[str]:
    """Return the ids of live jobs by name and by the folder they were submitted from.

    The whole pattern counts: a training job may be called `ccsd_long-s0-...` after its experiment.
    """
    name_of_plugin = re.compile(rf"{re.escape(prefix)}_{UUID}")
    return [
        job
        for job, name, where in slurm_queries.live_jobs()
        if name_of_plugin.fullmatch(name) and Path(where) == folder
    ]

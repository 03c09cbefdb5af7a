"""Cancel the jobs that a killed Snakemake left in the queue, because the executor plugin never finds them again.

Otherwise the next Snakemake would submit the same work again, and two jobs would write the same files
(snakemake/snakemake-executor-plugin-slurm#320). Training jobs are not affected: their launcher attaches to them.
"""

from pathlib import Path

from cluster import slurm_queries
from cluster.errors import JobError
from cluster.waiting import wait_until

FILE = ".slurm-run"
GONE_S = 120.0


def cancel_stale_jobs(folder: Path, run: str) -> bool:
    """Cancel the jobs of the study's last Snakemake, wait until they are gone, and record this one.

    Only the Snakemake that holds the study's lock (`cluster.snakemake.lock`) may call this.

    Parameters
    ----------
    folder
        Folder of the study.
    run
        Name of all jobs that the plugin submits for this Snakemake.

    Returns
    -------
    bool
        Whether there were any.

    Raises
    ------
    JobError
        If they do not end: starting now would mean two writers.
    """
    record = folder / FILE
    last = record.read_text(encoding="utf-8") if record.exists() else ""
    found = bool(last) and slurm_queries.find(last) is not None
    if found:
        slurm_queries.cancel_named(last)
        if not wait_until(lambda: slurm_queries.find(last) is None, GONE_S, 0.5):
            raise JobError(f"jobs of an earlier Snakemake do not end; run `scancel -n {last}`, then start again")
    record.write_text(run, encoding="utf-8")
    return found

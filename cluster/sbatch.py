"""From job settings to what sbatch gets: pure functions, and the executor that uses them.

submitit writes the script and pickles the call. What differs here: log paths go on sbatch's command line, because a
`#SBATCH` line cannot hold every legal path name (a newline ends it), and the job is always requeueable.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor

from cluster.settings import JobSettings

FORGET = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_", "PMI_", "PMI2_", "PMIX_", "OMPI_")
KEEP = frozenset({"SLURM_CONF", "SLURM_CLUSTERS_CONF", "SLURM_JWT"})
LOG_NAME = "%j_0_log.out"


def parameters(settings: JobSettings, name: str) -> dict[str, Any]:
    """Return what submitit's SLURM executor is told, in its own vocabulary.

    `wckey` is switched off because clusters that track workload keys refuse unknown ones.
    """
    wanted = {
        "job_name": name,
        "nodes": settings.nodes,
        "ntasks_per_node": settings.tasks_per_node,
        "cpus_per_task": settings.cpus_per_task,
        "gpus_per_node": settings.gpus_per_node or None,
        "mem": None if settings.mem_gb is None else f"{round(settings.mem_gb * 1024)}M",
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
    }
    return {
        **{key: value for key, value in wanted.items() if value is not None},
        "time": settings.timeout_min,
        "wckey": None,
        "signal_delay_s": settings.signal_delay_s,
        "stderr_to_stdout": True,
        "srun_args": srun_arguments(settings),
        "additional_parameters": {"requeue": True, "output": "/dev/null", **settings.extra},
    }


def srun_arguments(settings: JobSettings) -> list[str]:
    """Return srun's arguments: a dying rank ends the others, a restart appends to the log, cores are handed on."""
    return ["--kill-on-bad-exit=1", "--open-mode=append", f"--cpus-per-task={settings.cpus_per_task}"]


def script(settings: JobSettings, name: str, folder: Path, python: str = sys.executable) -> str:
    """Return the text of the batch script; the same settings give the same text."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{shlex.quote(python)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return str(_make_sbatch_string(command=command, folder=folder, **parameters(settings, name)))


def command_line(folder: Path, script_file: Path) -> list[str]:
    """Return the sbatch command; it names the log of the batch shell, where srun's own messages land."""
    log = str(folder / LOG_NAME)
    return ["sbatch", f"--output={log}", str(script_file)]


def scrubbed(environment: dict[str, str]) -> dict[str, str]:
    """Drop what an enclosing SLURM job left in the environment, else its memory and task counts bind the new job.

    `SLURM_CONF` and the token stay: without them no SLURM command finds or enters its cluster.
    """
    return {key: value for key, value in environment.items() if key in KEEP or not key.startswith(FORGET)}


class Executor(SlurmExecutor):
    """submitit's SLURM executor with the log path on sbatch's command line."""

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return command_line(Path(self.folder), submission_file_path)

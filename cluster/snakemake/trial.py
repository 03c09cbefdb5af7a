"""Asking SLURM before a run begins whether it would take the jobs, and whether it will be known how they end.

Otherwise a wrong account of the evaluation is reported after the training.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import warnings
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import Any

from cluster import slurm_queries
from cluster.errors import JobError
from cluster.launch import live_job
from cluster.patience import is_away, is_submit_limit
from cluster.rendezvous import without_enclosing_job
from cluster.settings import JobSettings
from cluster.submit import parameters
from cluster.texts import minutes

ONLY = "CLUSTER_TRIAL"
"""Environment variable: a file for what SLURM says; with it nothing else is done."""

SLOWEST_POLL_S = 180.0
"""The executor looks at its jobs at least this often, and in the beginning ten times a minute at most."""
FASTEST_POLL_S = 10.0


def try_jobs(workflow: Any, training: JobSettings) -> None:
    """Ask SLURM about one job of each rule that is to run on it; without SLURM's executor that is the training at most.

    Raises
    ------
    JobError
        If it would refuse some, with its own words; or if the file of `ONLY` has been written.
    """
    executor = workflow.scheduler._executor  # noqa: SLF001
    if (_is_slurms(executor) or training.cluster == "slurm") and shutil.which("sbatch") is None:
        raise JobError("sbatch: not found; type this on a machine of the cluster, or take --profile cluster/local here")
    said = {rule: ask(*submission) for rule, submission in _submissions(workflow, executor, training).items()}
    if _is_slurms(executor):
        longest = workflow.remote_execution_settings.seconds_between_status_checks
        said["how jobs end"] = keep_up(executor, workflow.executor_settings, longest)
    if os.environ.get(ONLY):
        Path(os.environ[ONLY]).write_text(json.dumps(said), encoding="utf-8")
        raise JobError("only tried, as asked")
    refused = [indent(f"{rule}: {words}", "  ") for rule, words in said.items() if words]
    if refused:
        advice = "Fix the profile; `ccsd doctor --profile PROFILE` tries again"
        raise JobError("\n".join(["nothing was started, because SLURM would not take it:", *refused, advice]))


def refuse_to_disturb(workflow: Any, rules: Collection[str], folders: Iterable[Path]) -> None:
    """Refuse to run rules again whose results a training on the cluster is reading.

    Parameters
    ----------
    rules
        Names of the rules.
    folders
        Folders of job records.

    Raises
    ------
    JobError
        If one of the rules would run and one of the jobs is alive, or SLURM does not say.
    """
    again = sorted(set(rules) & {job.rule.name for job in workflow.dag.needrun_jobs()})
    for folder in folders if again else ():
        job = live_job(folder)
        if job is not None:
            raise JobError(
                f"{', '.join(again)} would run again (were settings changed?), but {job.title} in {folder} is alive "
                f"and reads their results; wait for it, or end it with `scancel {job.job_id}`, then start again"
            )


def ask(words: Sequence[str], script: str | None = None) -> str | None:
    """Return why SLURM would refuse a job with these options, in its own words; None when it would take it.

    A trial takes nodes that are drained for nodes that do not exist. So a job that does nothing is submitted then; if
    it is taken, it is withdrawn at once. (Held, it would be taken in any case.)
    """
    said = _sbatch(["--test-only", *words], script)
    if said is None and "--qos=" in f"{' '.join(words)} {script}":
        return None  # it may allow more than its partition
    if said is None:
        return _too_long(*(_option(words, script, *names) for names in (("-p", "partition"), ("-t", "time"))))
    if is_away(said) or is_submit_limit(said):
        return None
    refused = _sbatch(["--job-name=ccsd-trial", "--output=/dev/null", *words], script)
    if refused is None:
        slurm_queries.cancel_named("ccsd-trial")
        return None
    command = f"\n(sbatch {shlex.join(words)})" if words else ""  # of a script the settings are known
    return refused.replace("sbatch: error: ", "").replace("\n", "; ") + command


def keep_up(executor: Any, settings: Any, longest: float) -> str | None:
    """Let the executor look at its jobs before SLURM forgets how they ended; return why it cannot, if it cannot.

    It matters only without accounting. The executor would then ask sacct in vain, and wait forever, if MinJobAge is
    below three times its first interval, or lose jobs that end between two looks.

    Parameters
    ----------
    settings
        Those of the executor.
    longest
        Seconds between two looks at most; by itself the executor looks more and more seldom, up to every 180 s.
    """
    age = min_job_age()
    if age is not None and age <= SLOWEST_POLL_S and not _runs(["sacct", "-n", "-X", "-S", "now"]):
        longest = min(longest, age / 3)
        if age / 3 < FASTEST_POLL_S:
            return (
                f"SLURM forgets a job {age} s after its end (MinJobAge) and has no accounting, so that nobody could "
                f"tell how jobs ended; needed is accounting, or a MinJobAge of {3 * FASTEST_POLL_S:.0f} s or more"
            )
        settings.init_seconds_before_status_checks = int(age / 3)
    own = type(executor).next_seconds_between_status_checks
    capped = property(lambda self: min(own.fget(self), longest), own.fset)
    type(executor).next_seconds_between_status_checks = capped
    return None


def _too_long(partition: str | None, time: str | None) -> str | None:
    """Return why a job would wait forever in a partition with a shorter limit, which SLURM takes unless told not to."""
    limits = {name.strip("*"): limit for name, limit in slurm_queries.time_limits().items() if partition or "*" in name}
    allowed = [limits.get(name, "infinite") for name in (partition.split(",") if partition else limits)]
    if time is None or any(not limit[:1].isdigit() or minutes(time) <= minutes(limit) for limit in allowed):
        return None
    asked = (
        f"{minutes(time)} minutes are asked for, partition {partition or ', '.join(limits)} allows {', '.join(allowed)}"
    )
    return f"{asked} (days-hours:minutes:seconds); SLURM would take the job and never start it"


def _option(words: Sequence[str], script: str | None, short: str, long: str) -> str | None:
    """Return the value of an option of sbatch, from the command line or from a script."""
    found = re.search(rf"^#SBATCH --{long}=(.*)$", script or "", re.MULTILINE)
    return shlex.split(found[1])[0] if found else dict(pairwise(words)).get(short)


def min_job_age() -> int | None:
    """Return for how many seconds squeue knows a job after its end."""
    done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False)
    found = re.search(r"^MinJobAge\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return int(found[1]) if found else None


def training_script(settings: JobSettings) -> str:
    """Return a batch script with the options of a training."""
    from submitit.slurm.slurm import _make_sbatch_string

    return str(_make_sbatch_string(command="true", folder="/", **parameters(settings, "ccsd-trial")))


def _submissions(workflow: Any, executor: Any, training: JobSettings) -> dict[str, tuple[list[str], str | None]]:
    """Return what `ask` takes for one job of each rule: options, or of a training its script."""
    found: dict[str, tuple[list[str], str | None]] = {}
    for job in workflow.dag.needrun_jobs():
        if job.rule.name == "train" and training.cluster == "slurm":
            found.setdefault("train", ([], training_script(training)))
        elif _is_slurms(executor) and job.rule.name not in found and not job.is_local:
            words = _executors_words(job, executor, workflow.executor_settings)
            if words is not None:
                found[job.rule.name] = words, None
    return found


def _executors_words(job: Any, executor: Any, settings: Any) -> list[str] | None:
    """Return the options with which the executor would submit a job; None while they depend on files to come."""
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command
    from snakemake_executor_plugin_slurm.utils import set_gres_string

    names = {
        "run_uuid": "ccsd-trial",
        "slurm_logfile": "/dev/null",
        "comment_str": "",
        "account": next(executor.get_account_arg(job)),
        "partition": executor.get_partition_arg(job),
        "workdir": "",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Snakemake forgets to ask for the size of files to come
        call = get_submit_command(job, names, settings=settings) + set_gres_string(job)
    return None if "TBD" in call else [word for word in shlex.split(call)[1:] if word != "--parsable"]


def _is_slurms(executor: Any) -> bool:
    return hasattr(executor, "run_uuid")


def _sbatch(words: Sequence[str], script: str | None) -> str | None:
    """Return what sbatch says when it refuses; None when it does not."""
    wrap = ["--wrap=true"] if script is None else []
    done = subprocess.run(
        ["sbatch", *words, *wrap],
        input=script or "",
        capture_output=True,
        text=True,
        check=False,
        env=without_enclosing_job(os.environ),
    )
    return (done.stderr.strip() or "no message") if done.returncode else None


def _runs(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False

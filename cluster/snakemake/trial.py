"""Ask SLURM before a run starts whether it would accept the jobs, and make sure that we can find out how they end.

Otherwise a wrong account for the evaluation would be reported only after the training.
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
"""Environment variable: a file for SLURM's answers; if it is set, nothing else is done."""

HOW_JOBS_END = "how jobs end"
"""Stands among the names of rules for the question whether anything can find out how jobs ended."""

SLOWEST_POLL_S = 180.0
"""The executor checks its jobs at least this often."""
FASTEST_POLL_S = 10.0
"""And at first at most this often."""


def try_jobs(workflow: Any, training: JobSettings) -> None:
    """Ask SLURM about one job of each rule that is to run on it (without SLURM's executor, at most the training).

    Raises
    ------
    JobError
        If SLURM would reject any, with its own words; or if the file of `ONLY` has been written.
    """
    executor = workflow.scheduler._executor  # noqa: SLF001
    if (_is_slurms(executor) or training.cluster == "slurm") and shutil.which("sbatch") is None:
        raise JobError("sbatch: not found; run this on a machine of the cluster, or use --profile cluster/local here")
    answers = {rule: ask(*submission) for rule, submission in _submissions(workflow, executor, training).items()}
    if _is_slurms(executor):
        longest = workflow.remote_execution_settings.seconds_between_status_checks
        answers[HOW_JOBS_END] = keep_up(executor, workflow.executor_settings, longest)
    if os.environ.get(ONLY):
        Path(os.environ[ONLY]).write_text(json.dumps(answers), encoding="utf-8")
        raise JobError("only a trial, as requested")
    rejected = [indent(f"{rule}: {words}", "  ") for rule, words in answers.items() if words]
    if rejected:
        advice = "Fix the profile; `ccsd doctor --profile PROFILE` tries again"
        raise JobError("\n".join(["nothing was started, because SLURM would reject jobs:", *rejected, advice]))


def refuse_to_disturb(workflow: Any, rules: Collection[str], folders: Iterable[Path]) -> None:
    """Refuse to rerun rules whose results a training on the cluster is reading.

    Parameters
    ----------
    rules
        Names of the rules.
    folders
        Folders of job records.

    Raises
    ------
    JobError
        If one of the rules would run and one of the jobs is still active, or SLURM does not answer.
    """
    again = sorted(set(rules) & {job.rule.name for job in workflow.dag.needrun_jobs()})
    for folder in folders if again else ():
        job = live_job(folder)
        if job is not None:
            raise JobError(
                f"{', '.join(again)} would run again (were settings changed?), but {job.title} in {folder} is still "
                f"active and reads their results; wait for it, or end it with `scancel {job.job_id}`, then start again"
            )


def ask(words: Sequence[str], script: str | None = None) -> str | None:
    """Return why SLURM would reject a job with these options, in its own words; None if it would accept it.

    With --test-only, SLURM treats drained nodes as if they did not exist. After such a rejection, a job that does
    nothing is submitted; if it is accepted, it is cancelled at once. (A held job would be accepted in any case.)
    """
    rejection = _sbatch(["--test-only", *words], script)
    if rejection is None and "--qos=" in f"{' '.join(words)} {script}":
        return None  # a QOS may allow more than its partition
    if rejection is None:
        return _too_long(*(_option(words, script, *names) for names in (("-p", "partition"), ("-t", "time"))))
    if is_away(rejection) or is_submit_limit(rejection):
        return None
    rejected = _sbatch(["--job-name=ccsd-trial", "--output=/dev/null", *words], script)
    if rejected is None:
        slurm_queries.cancel_named("ccsd-trial")
        return None
    command = f"\n(sbatch {shlex.join(words)})" if words else ""  # a script's settings are known
    return rejected.replace("sbatch: error: ", "").replace("\n", "; ") + command


def keep_up(executor: Any, settings: Any, longest: float) -> str | None:
    """Make the executor check its jobs before SLURM forgets how they ended; return why this is impossible, if it is.

    It matters only without accounting. The executor would then ask sacct in vain, and wait forever, if MinJobAge is
    below three times its first interval; or it would lose jobs that end between two checks.

    Parameters
    ----------
    settings
        Settings of the executor.
    longest
        Maximum seconds between two checks; by default the executor's interval grows, up to 180 s.
    """
    age = min_job_age()
    if age is not None and age <= SLOWEST_POLL_S and not _runs(["sacct", "-n", "-X", "-S", "now"]):
        longest = min(longest, age / 3)
        if age / 3 < FASTEST_POLL_S:
            return (
                f"SLURM forgets a job {age} s after its end (MinJobAge) and has no accounting, so it would not be "
                f"known how jobs ended; use accounting, or a MinJobAge of {3 * FASTEST_POLL_S:.0f} s or more"
            )
        settings.init_seconds_before_status_checks = int(age / 3)
    own = type(executor).next_seconds_between_status_checks
    capped = property(lambda self: min(own.fget(self), longest), own.fset)
    type(executor).next_seconds_between_status_checks = capped
    return None


def _too_long(partition: str | None, time: str | None) -> str | None:
    """Return why a job would wait forever: by default SLURM accepts more time than the partition's limit."""
    limits = {name.strip("*"): limit for name, limit in slurm_queries.time_limits().items() if partition or "*" in name}
    allowed = [limits.get(name, "infinite") for name in (partition.split(",") if partition else limits)]
    if time is None or any(not limit[:1].isdigit() or minutes(time) <= minutes(limit) for limit in allowed):
        return None
    asked = (
        f"{minutes(time)} minutes are requested, partition {partition or ', '.join(limits)} allows {', '.join(allowed)}"
    )
    return f"{asked} (days-hours:minutes:seconds); SLURM would accept the job and never start it"


def _option(words: Sequence[str], script: str | None, short: str, long: str) -> str | None:
    """Return the value of an option of sbatch, from the command line or from a script."""
    found = re.search(rf"^#SBATCH --{long}=(.*)$", script or "", re.MULTILINE)
    return shlex.split(found[1])[0] if found else dict(pairwise(words)).get(short)


def min_job_age() -> int | None:
    """Return for how many seconds squeue still knows a job after its end."""
    done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False)
    found = re.search(r"^MinJobAge\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return int(found[1]) if found else None


def training_script(settings: JobSettings) -> str:
    """Return a batch script with the options of a training."""
    from submitit.slurm.slurm import _make_sbatch_string

    return str(_make_sbatch_string(command="true", folder="/", **parameters(settings, "ccsd-trial")))


def _submissions(workflow: Any, executor: Any, training: JobSettings) -> dict[str, tuple[list[str], str | None]]:
    """Return the arguments of `ask` for one job of each rule: options or, for a training, its script."""
    found: dict[str, tuple[list[str], str | None]] = {}
    for job in workflow.dag.needrun_jobs():
        if job.rule.name == "train" and training.cluster == "slurm":
            found.setdefault("train", ([], training_script(training)))
        elif _is_slurms(executor) and job.rule.name not in found and not job.is_local:
            words = _executor_options(job, executor, workflow.executor_settings)
            if words is not None:
                found[job.rule.name] = words, None
    return found


def _executor_options(job: Any, executor: Any, settings: Any) -> list[str] | None:
    """Return the options with which the executor would submit a job; None if they depend on files not yet created."""
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
        warnings.simplefilter("ignore", RuntimeWarning)  # Snakemake does not await the size of files not yet created
        call = get_submit_command(job, names, settings=settings) + set_gres_string(job)
    return None if "TBD" in call else [word for word in shlex.split(call)[1:] if word != "--parsable"]


def _is_slurms(executor: Any) -> bool:
    return hasattr(executor, "run_uuid")


def _sbatch(words: Sequence[str], script: str | None) -> str | None:
    """Return sbatch's message if it rejects the job; None if it does not."""
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

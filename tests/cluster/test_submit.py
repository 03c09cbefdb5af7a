"""The sbatch script made from job settings, and the names by which jobs are found."""

import shlex
from pathlib import Path

import pytest

from cluster.errors import SettingsError
from cluster.job_record import command_digest, job_name
from cluster.rendezvous import without_enclosing_job
from cluster.settings import JobSettings
from cluster.submit import command_line
from support.hostile import SECRETS
from support.slurm import batch_script

GOLDEN = """\
#!/bin/bash

# Parameters
#SBATCH --account=radiology
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=8
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --job-name=train
#SBATCH --mem=131072M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/dev/null
#SBATCH --partition=gpu
#SBATCH --qos=long
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=1440

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/runs/my run/001/%j_%t_log.out' --kill-on-bad-exit=1 --open-mode=append --cpus-per-task=8 \
/usr/bin/python3 -u -m submitit.core._submit '/runs/my run/001'
"""


def test_golden_script() -> None:
    settings = JobSettings.from_options(
        [
            "cluster=slurm", "nodes=2", "tasks_per_node=4", "gpus_per_node=4", "cpus_per_task=8", "mem_gb=128",
            "timeout_min=1440", "partition=gpu", "account=radiology", "qos=long", "constraint=a100|h100",
            "signal_delay_s=300", "extra.exclusive=true",
        ]
    )  # fmt: skip
    assert batch_script(settings, "train", Path("/runs/my run/001"), python="/usr/bin/python3") == GOLDEN


def test_unset_settings_leave_the_clusters_defaults() -> None:
    text = batch_script(JobSettings(cluster="slurm"), "train", Path("/runs/001"))
    for option in ("--time", "--mem", "--partition", "--account", "--gpus", "--wckey"):
        assert option not in text


@pytest.mark.parametrize("name", ["a b", "it's", "new\nline", "$(reboot)", "`x`;y"])
def test_no_path_reaches_an_sbatch_line_or_the_shell_unquoted(name: str) -> None:
    folder = Path("/runs") / name
    text = batch_script(JobSettings(cluster="slurm"), "train", folder)
    head, _, body = text.partition("# command\n")
    assert name not in head
    assert shlex.split(body.partition("\n")[2])[-1] == str(folder)
    assert command_line(folder, folder / "x.sh")[1] == f"--output={folder}/%j_0_log.out"
    assert command_line(folder, folder / "x.sh", "00123")[2] == "--account=00123"


def test_what_an_enclosing_job_left_is_dropped() -> None:
    environment = {
        "PATH": "/bin",
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_MEM_PER_NODE": "100",
        "SLURM_JOB_ID": "7",
        "SBATCH_ACCOUNT": "mine",
        "SBATCH_EXPORT": "NONE",
        "SBATCH_TIMELIMIT": "3",
        "SRUN_CPUS_PER_TASK": "1",
        "PMIX_RANK": "0",
    }
    kept = {"PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "mine"}
    assert without_enclosing_job(environment) == kept


def test_job_names_differ_by_folder_and_survive_strange_names() -> None:
    first = job_name("train run/1", Path("/runs/a"))
    assert first != job_name("train run/1", Path("/runs/b"))
    assert first == job_name("train run/1", Path("/runs/a"))
    assert first.startswith("train-run-1-")


def test_commands_that_only_look_alike_differ() -> None:
    assert command_digest(["a b", "c"]) != command_digest(["a", "b c"])


@pytest.mark.parametrize("setting", ["partition", "account", "qos", "constraint", "reservation"])
def test_no_setting_adds_a_line_to_the_script(setting: str) -> None:
    def script(value: str) -> str:
        given = {"extra": {setting: value}} if setting == "reservation" else {setting: value}
        return batch_script(JobSettings.from_mapping({"cluster": "slurm", **given}), "train", Path("/runs/001"))

    assert script("a b; $(id) #").count("\n") == script("plain").count("\n")
    with pytest.raises(SettingsError, match=f"{setting}: .* must be a single line"):
        script("a\n#SBATCH --uid=0")


def test_the_script_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    text = batch_script(JobSettings(cluster="slurm", nodes=2, gpus_per_node=1), "name", Path("/runs/001"))
    assert "secret-" not in text

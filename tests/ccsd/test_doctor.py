"""`ccsd doctor`: the diagnosis of made-up machines, and the command on this one."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ccsd import doctor
from support.hostile import SECRETS
from support.processes import ccsd, ccsd_here

HEALTHY = doctor.Facts(
    python="3.11.7",
    system="Linux",
    versions=dict.fromkeys(doctor.PACKAGES, "1.0"),
    gpus=["H100 (80 GB)"],
    driver=True,
    accelerator="cuda",
    accelerator_error=None,
    cpus=8,
    memory_gb=64.0,
    disk_gb=500.0,
    writable=True,
    folder="/results",
    slurm={"sbatch": "/usr/bin/sbatch"},
    slurm_answer="gpu 2 idle",
    slurm_error=None,
)


def test_nothing_is_wrong_with_a_healthy_machine() -> None:
    found = doctor.diagnose(HEALTHY)
    assert (found.blocking, found.warnings) == ([], [])
    assert "Everything required is installed." in doctor.as_text(HEALTHY, found)


def test_only_jobs_are_listed_as_jobs() -> None:
    facts = replace(
        HEALTHY, jobs={"train": None, "report": None, "evaluate": "invalid partition", "how jobs end": None}
    )
    assert "jobs        SLURM would accept: report, train\n" in doctor.as_text(facts, doctor.diagnose(facts))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"python": "3.14.0"}, "Python 3.14.0 is not supported", id="python"),
        pytest.param({"versions": {**HEALTHY.versions, "zarr": None}}, "not installed: zarr", id="package"),
        pytest.param({"accelerator_error": "no CUDA"}, "DS_ACCELERATOR=cpu", id="accelerator"),
        pytest.param({"gpus": [], "gpu_problem": "SLURM gave GPUs, but"}, "SLURM gave GPUs, but", id="unusable-gpu"),
        pytest.param({"writable": False}, "/results cannot be written to", id="folder"),
    ],
)
def test_what_makes_running_impossible_is_blocking(change: dict[str, object], words: str) -> None:
    found = doctor.diagnose(replace(HEALTHY, **change))
    assert len(found.blocking) == 1
    assert words in found.blocking[0]
    assert "PROBLEM" in doctor.as_text(HEALTHY, found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"gpu_notes": ("T4: use fp16",)}, "T4: use fp16", id="slow-gpu"),
        pytest.param({"gpus": []}, "torch sees no GPU", id="driver-without-gpu"),
        pytest.param({"gpus": [], "driver": False}, "no GPU", id="no-gpu"),
        pytest.param({"disk_gb": 1.0}, "only 1 GB of disk", id="disk"),
        pytest.param({"memory_gb": 2.0}, "only 2 GB of memory", id="memory"),
        pytest.param({"gpus": [], "driver": False}, "jobs on this cluster may have them", id="no-gpu-on-a-login-node"),
        pytest.param({"missing_extras": {"train": ["deepspeed"]}}, "training needs deepspeed, not inst", id="extra"),
        pytest.param({"slurm_answer": None}, "no SLURM here", id="no-slurm"),
        pytest.param(
            {"slurm_answer": None, "slurm_error": "timed out"}, "does not respond: timed out", id="slurm-away"
        ),
    ],
)
def test_what_limits_is_a_warning(change: dict[str, object], words: str) -> None:
    found = doctor.diagnose(replace(HEALTHY, **change))
    assert found.blocking == []
    assert len(found.warnings) == 1
    assert words in found.warnings[0]


def test_an_installation_without_extras_says_what_it_is_good_for() -> None:
    core = replace(HEALTHY, versions={**HEALTHY.versions, "deepspeed": None}, missing_extras={"train": ["deepspeed"]})
    text = doctor.as_text(core, doctor.diagnose(core))
    assert "DeepSpeed   missing" in text
    assert "Everything required to convert, predict, evaluate and report is installed." in text


def test_the_command_prints_facts_of_this_machine() -> None:
    done = ccsd("doctor", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["blocking"] == []
    assert facts["accelerator"] in {"cpu", "cuda"}
    assert 1 <= facts["cpus"] <= 100_000


def test_a_missing_folder_is_one_message() -> None:
    done = ccsd_here("doctor", "/no/such/folder")
    assert done.returncode == 2
    assert done.stderr.startswith("error: /no/such/folder: no such folder")
    assert "Traceback" not in done.stderr


def test_the_error_of_a_profile_is_shown_without_the_jobs_before_it() -> None:
    error = "WorkflowError in file x, line 102:\nThe given account wrong appears to be invalid."
    assert doctor.last_error(f"job count\n--- ---\nall 1\n\n{error}\n  File x, line 102\n") == error
    assert doctor.last_error("snakemake: error: no profile\n") == "snakemake: error: no profile"


@pytest.mark.slow
def test_no_secret_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    facts = doctor.inspect_machine(tmp_path)
    found = doctor.diagnose(facts)
    assert "secret-" not in doctor.as_text(facts, found) + json.dumps(doctor.as_dict(facts, found))

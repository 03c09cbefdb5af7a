"""Jobs that SLURM would reject are reported before anything starts; so is a cluster that does not record job ends."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ccsd.doctor import try_profile
from cluster.job_record import JobRecord
from cluster.snakemake import trial
from support import ROOT
from support.processes import ccsd, eventually
from support.projects import HERE, Project

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

ON_SLURM = ("--profile", "slurm", "--configfile", "study.yaml", "--latency-wait", "10", "--set-resources")
TRAIN = ("train:cluster=slurm", "train:partition=gpu")


def _ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clone(slurm: Path, project: Callable[..., Project]) -> Project:
    made = project()
    made.environment["PATH"] = f"{made.folder}/bin:{slurm}/bin:{made.environment['PATH']}"
    made.configure(phantom={"cases": 5})
    return made


@pytest.fixture
def min_job_age(slurm: Path) -> Iterator[Callable[[int], None]]:
    """Return a function that sets after how many seconds the cluster forgets a job; reset it afterwards."""
    file = slurm / "etc/slurm.conf"
    before = file.read_text()

    def change(seconds: int) -> None:
        file.write_text(before.replace("MinJobAge=600", f"MinJobAge={seconds}"))
        _ask("scontrol", "reconfigure")
        eventually(lambda: trial.min_job_age() == seconds, 30)

    yield change
    change(600)


def test_nothing_is_started_when_slurm_would_reject_a_later_job(clone: Project) -> None:
    wrong = ("train:partition=nonexistent", "evaluate:slurm_partition=cpu", "evaluate:gpu=1", "report:runtime=8d")
    done = clone.snakemake(*ON_SLURM, "train:cluster=slurm", *wrong)
    assert done.returncode == 1
    assert "nothing was started, because SLURM would reject jobs" in done.stderr
    assert "  train: invalid partition specified: nonexistent" in done.stderr
    assert "  evaluate: Batch job submission failed: Requested node configuration is not available" in done.stderr
    assert "  report: 11520 minutes are requested, partition cpu allows 7-00:00:00" in done.stderr
    assert "convert:" not in done.stderr.partition("nothing was started")[2]
    assert "Traceback" not in done.stderr
    assert clone.calls() == []
    assert _ask("squeue", "-h", "--me") == ""


def test_what_a_living_training_reads_is_not_made_again(clone: Project) -> None:
    until_split = (*ON_SLURM[:-1], "--seconds-between-status-checks", "1", "--until", "split", *ON_SLURM[-1:])
    job = _ask("sbatch", "--parsable", "--mem=10", "-o", "/dev/null", "--wrap", "sleep 600").strip()
    JobRecord(job, "digest", str(clone.training / "job/001"), tasks=1).save(clone.training / "job")
    rejected = clone.snakemake(*until_split, *TRAIN, "convert:mem_mb=100")
    assert rejected.returncode == 1
    assert "convert, phantom, split would run again (were settings changed?), but job " + job in rejected.stderr
    assert "Traceback" not in rejected.stderr
    assert clone.calls() == []
    assert not (clone.results / "config.yaml").exists()
    _ask("scancel", job)
    eventually(lambda: _ask("squeue", "-h", "--me") == "", 30)
    assert clone.snakemake(*HERE, "--until", "split").returncode == 0


def test_a_training_on_slurm_is_tried_whatever_runs_the_rest(clone: Project) -> None:
    done = clone.snakemake(*HERE, "--set-resources", "train:cluster=slurm", "train:partition=nonexistent")
    assert done.returncode == 1
    assert "  train: invalid partition specified: nonexistent" in done.stderr
    assert clone.calls() == []


def test_a_job_that_will_have_to_wait_is_no_rejection(slurm: Path) -> None:
    _ask("scontrol", "update", "nodename=127.0.2.[1-2]", "state=drain", "reason=test")
    try:
        assert trial.ask(["-p", "cpu"], None) is None
    finally:
        _ask("scontrol", "update", "nodename=127.0.2.[1-2]", "state=resume")
    eventually(lambda: _ask("squeue", "-h", "--me", "-t", "PD,R") == "", 30)


def test_the_doctor_asks_for_each_kind_of_job(slurm: Path) -> None:
    done = ccsd("doctor", "--profile", "slurm", "--json", cwd=ROOT)
    jobs = json.loads(done.stdout)["jobs"]
    assert set(jobs) == {"phantom", "convert", "split", "train", "evaluate", "report", "how jobs end"}
    assert set(jobs.values()) == {None}
    assert _ask("squeue", "-h", "--me") == ""


SITES = {
    "only gres": [
        ("    gpu: 1", ""), ("# gres: gpu:a100", "gres: gpu:h100"), ("gpus_per_node: 2 ", "gpus_per_node: 0 "),
        ("# extra: \"{gres: 'gpu:a100", "extra: \"{gres: 'gpu:h100"),
    ],
    "GPUs by type": [("# gpu_model: a100", "gpu_model: h100"), ("gpus_per_node: 2 ", "gpus_per_node: h100:2 ")],
    "GPUs per task": [
        ("    gpu: 1", ""), ("# slurm_extra", "slurm_extra"), ('# extra: "{gpus-per-task', 'extra: "{gpus-per-task'),
    ],
    "no memory": [("    mem_gb: 128", ""), ("mem_mb: 8000", "mem_mb: 0"), ("mem_mb: 16000", ""), ("mem_mb: 32000", "")],
    "memory per core": [
        ("    mem_gb: 128", ""), ("mem_mb: 8000", "mem_mb_per_cpu: 1000"), ("mem_mb: 16000", ""), ("mem_mb: 32000", ""),
        ('# extra: "{mem-per-cpu', 'extra: "{mem-per-cpu'), ("timeout_min: 1440", 'timeout_min: "2-00:00:00"'),
    ],
}  # fmt: skip
"""Changes to the profile that sites need: mostly lines that are in it as comments."""


@pytest.mark.parametrize("site", SITES)
def test_the_profiles_comments_suit_sites(
    site: str, slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "cluster/slurm/profile.yaml").read_text()
    for before, after in SITES[site]:
        assert before in text, f"{before} is no line of the profile any more"
        text = text.replace(before, after, 1)
    (tmp_path / "profile.yaml").write_text(text)
    monkeypatch.chdir(ROOT)
    jobs = try_profile(str(tmp_path / "profile.yaml"))
    assert set(jobs.values()) == {None}, jobs
    assert len(jobs) == 7


def test_a_cluster_that_forgets_jobs_at_once_is_named(clone: Project, min_job_age: Callable[[int], None]) -> None:
    min_job_age(5)
    done = clone.snakemake(*ON_SLURM, *TRAIN, "convert:mem_mb=100")
    assert done.returncode == 1
    assert "how jobs end: SLURM forgets a job 5 s after its end (MinJobAge) and has no accounting" in done.stderr
    assert clone.calls() == []


def test_a_cluster_that_forgets_jobs_soon_is_asked_more_often(
    clone: Project, min_job_age: Callable[[int], None]
) -> None:
    min_job_age(30)
    done = clone.snakemake(*ON_SLURM, *TRAIN, "convert:mem_mb=100", "--until", "phantom")
    assert done.returncode == 0, done.stderr
    assert "Falling back to 'sacct'" not in done.stderr
    assert len(clone.calls("phantom")) == 1

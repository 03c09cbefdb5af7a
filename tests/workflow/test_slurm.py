"""`snakemake --profile slurm` on a real SLURM, disturbed in every stage, against an undisturbed run on one machine.

The stages are the real ones on tiny phantoms. A wrapper around `ccsd` counts the calls and, where a file says so, holds
a stage back so that it can be interrupted.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]

STEPS = 8
STUDY = {
    "phantom": {"cases": 8, "size": 32},
    "convert": {"cases_per_job": 4},
    "split": {"train": 0.5, "val": 0.25},
    "model": {"width": 2, "levels": 2},
    "distillation": {"every_n": 4},
    "train": {
        "steps": STEPS, "patch": [16, 16, 16], "batch_size": 4, "checkpoint_every": 2, "validate_every": STEPS,
        "precision": "fp32", "workers": 0,
    },
    "evaluation": {"subsets_per_job": 1, "subsets": ["t1ce", "flair+t1+t1ce+t2"]},
}  # fmt: skip
TRAIN = ("train:cpus_per_task=1", "train:mem_gb=2", "train:timeout_min=10")
ON_SLURM = (
    "--profile", "slurm", "--configfile", "study.yaml", "--max-status-checks-per-second", "1",
    "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10", "--set-threads", "convert=1",
    "evaluate=1", "--set-resources", "train:cluster=slurm", "train:partition=gpu", "train:nodes=2",
    "train:tasks_per_node=2", "train:gpus_per_node=2", *TRAIN, "evaluate:slurm_partition=gpu", "evaluate:gpu=1",
    "evaluate:mem_mb=1000", "convert:mem_mb=1000",
)  # fmt: skip
HERE = (
    "--profile", "cluster/local", "--configfile", "study.yaml", "--set-resources", "train:tasks_per_node=4", *TRAIN
)  # fmt: skip

WRAPPER = """\
#!/bin/bash
echo "$*" >> "{folder}/calls.txt"
while [ -e "{folder}/hold-$1" ]; do sleep 0.1; done
exec {program} "$@"
"""


def _add_wrapper(clone: Any) -> None:
    program = clone.folder / "bin" / "ccsd"
    program.parent.mkdir()
    program.write_text(WRAPPER.format(folder=clone.folder, program=Path(sys.executable).parent / "ccsd"))
    program.chmod(0o755)
    clone.environment["PATH"] = f"{program.parent}:{clone.environment['PATH']}"


@pytest.fixture(scope="module")
def undisturbed(project_at: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of the study on this machine, with as many processes as on the cluster."""
    clone = project_at(tmp_path_factory.mktemp("undisturbed") / "clone", stand_in=False)
    clone.configure(**STUDY)
    done = clone.snakemake(*HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(clone.folder) / "results/study"


@pytest.fixture
def clone(slurm: Path, project: Callable[..., Any]) -> Iterator[Any]:
    """Return a clone of the workflow whose calls are counted, with an empty queue."""
    subprocess.run(["scancel", "--full", "--me"], check=False)
    made = project(stand_in=False)
    made.environment["PATH"] = f"{slurm}/bin:{made.environment['PATH']}"
    made.configure(**STUDY)
    _add_wrapper(made)
    made.running = []
    yield made
    for running in made.running:
        running.kill()
    subprocess.run(["scancel", "--full", "--me"], check=False)


class Running:
    """A Snakemake that runs beside the test."""

    def __init__(self, clone: Any, *arguments: str) -> None:
        clone.running.append(self)
        self.log = clone.folder / "snakemake.out"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *arguments],
                cwd=clone.folder,
                env=clone.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill Snakemake and all it started here, as a crash of the machine would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, seconds: float = 900) -> str:
        code = self.process.wait(timeout=seconds)
        text: str = self.log.read_text()
        assert code == 0, text
        return text


def _calls(clone: Any, stage: str) -> list[str]:
    return [line for line in clone.calls() if line.startswith(stage)]


def _queued() -> list[str]:
    return _squeue("-o", "%j %T").splitlines()


def _squeue(*options: str) -> str:
    return subprocess.run(["squeue", "-h", "--me", *options], capture_output=True, text=True, check=True).stdout


def _hold(clone: Any, stage: str) -> Path:
    mark: Path = clone.folder / f"hold-{stage}"
    mark.touch()
    return mark


def _again(clone: Any) -> Running:
    """Type the same command, after the `--unlock` that Snakemake asks for."""
    refused = clone.snakemake(*ON_SLURM)
    assert refused.returncode == 1
    assert "--unlock" in refused.stdout + refused.stderr
    assert clone.snakemake(*ON_SLURM, "--unlock").returncode == 0
    return Running(clone, *ON_SLURM)


def _same_result(clone: Any, undisturbed: Path) -> None:
    results = clone.folder / "results/study"
    run = "runs/ccsd-s0/run.json"
    hashes = [json.loads((root / run).read_text())["model_hash"] for root in (results, undisturbed)]
    assert hashes[0] == hashes[1], "the weights differ from those of the undisturbed run"
    assert _rows(results) == _rows(undisturbed)


def _rows(results: Path) -> list[str]:
    return sorted((results / "metrics.tsv").read_text().splitlines())


def _steps_done(clone: Any) -> int:
    path = clone.folder / "results/study/runs/ccsd-s0/checkpoints"
    return len(list(path.glob("step-*"))) if path.exists() else 0


@pytest.mark.exhaustive
def test_killed_in_every_stage_it_carries_on_and_repeats_nothing(
    clone: Any, undisturbed: Path, eventually: Callable[..., None]
) -> None:
    held = _hold(clone, "convert")
    first = Running(clone, *ON_SLURM)
    eventually(lambda: len(_calls(clone, "convert")) == 2, 300)
    first.kill()
    assert len(_queued()) == 2, "the jobs of a killed Snakemake stay in the queue"

    second = _again(clone)
    eventually(lambda: "cancelled 2 jobs that an earlier Snakemake left" in second.log.read_text(), 120)
    held.unlink()
    eventually(lambda: _steps_done(clone) > 0, 600)
    second.kill()
    assert [line for line in _queued() if line.startswith("ccsd-s0-")], "the training goes on without Snakemake"

    held = _hold(clone, "evaluate")
    third = _again(clone)
    eventually(lambda: len(_calls(clone, "evaluate")) == 2, 600)
    third.kill()

    fourth = _again(clone)
    eventually(lambda: len(_calls(clone, "evaluate")) == 4, 300)
    held.unlink()
    fourth.end()

    _same_result(clone, undisturbed)
    assert len(_calls(clone, "phantom")) == 1
    assert len(_calls(clone, "convert")) == 4, "each part was converted by its second job"
    assert len(_calls(clone, "split")) == 1
    assert len(_calls(clone, "evaluate")) == 4, "each combination was scored by its second job"
    job = clone.folder / "results/study/runs/ccsd-s0/job"
    assert [path.name for path in job.iterdir() if path.name.isdigit()] == ["001"], "one training job"
    assert not (job / "001" / "requeues.tsv").exists()


def test_preempted_training_and_cancelled_evaluation_give_the_same_result(
    clone: Any, undisturbed: Path, eventually: Callable[..., None]
) -> None:
    held = _hold(clone, "evaluate")
    running = Running(clone, *ON_SLURM)
    eventually(lambda: _steps_done(clone) > 0, 600)
    urgent = [
        "sbatch",
        "-p",
        "urgent",
        "-N2",
        "-n2",
        "--exclusive",
        "--mem=100",
        "-o",
        "/dev/null",
        "--wrap",
        "sleep 3",
    ]
    subprocess.run(urgent, check=True, capture_output=True)
    job = clone.folder / "results/study/runs/ccsd-s0/job/001"
    eventually((job / "requeues.tsv").exists, 120)

    eventually(lambda: len(_calls(clone, "evaluate")) == 2, 600)
    subprocess.run(["scancel", _squeue("-p", "gpu", "-o", "%A").split()[0]], check=True)
    held.unlink()
    running.end()

    _same_result(clone, undisturbed)
    assert len(_calls(clone, "evaluate")) == 3, "only the cancelled evaluation was repeated"
    assert len(_calls(clone, "convert")) == 2
    assert len((job / "requeues.tsv").read_text().splitlines()) == 1


def test_a_failed_jobs_last_lines_are_shown(clone: Any) -> None:
    (clone.folder / "bin/ccsd").write_text("#!/bin/bash\necho 'error: the phantom cannot be drawn'\nexit 2\n")
    done = clone.snakemake(*ON_SLURM, "--retries", "0")
    assert done.returncode == 1
    assert "error: the phantom cannot be drawn" in done.stdout + done.stderr


def test_left_over_jobs_of_another_folder_are_not_touched(clone: Any, eventually: Callable[..., None]) -> None:
    from cluster import leftovers

    other = clone.folder / "other"
    other.mkdir()
    plugin = "ccsd_7b0c1e52-1111-4222-8333-0123456789ab"
    training = "ccsd_long-s0-0123456789ab"
    for folder, name in ((clone.folder, plugin), (other, plugin), (clone.folder, training)):
        command = ["sbatch", "-J", name, "--mem=10", "-o", "/dev/null", "--wrap", "sleep 300"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    eventually(lambda: len(_queued()) == 3)
    assert leftovers.cancel("ccsd", clone.folder) == 1
    assert sorted(line.split()[0] for line in _queued()) == [plugin, training]
    assert leftovers.cancel("ccsd", clone.folder) == 0

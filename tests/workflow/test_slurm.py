"""`snakemake --profile slurm` on a real SLURM, disturbed in every stage, against an undisturbed run on one machine.

The stages are the real ones on tiny phantoms. A wrapper around `ccsd` counts the calls and, where a file says so, holds
a stage back so that it can be interrupted.
"""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from support.processes import eventually
from support.projects import HERE, TINY, Project, Running

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

STEPS = TINY["train"]["steps"]
STUDY = {
    **{name: section for name, section in TINY.items() if name != "evaluation"},
    "convert": {"cases_per_job": 3},
    "train": {**TINY["train"], "batch_size": 4},
}
ALL = {"subsets_per_job": 4}
"""All 15 combinations, in four jobs."""
TWO = {"subsets_per_job": 1, "subsets": ["t1ce", "flair+t1+t1ce+t2"]}
TRAIN = ("train:cpus_per_task=1", "train:mem_gb=2")
ON_SLURM = (
    "--profile", "slurm", "--configfile", "study.yaml", "--max-status-checks-per-second", "1",
    "--seconds-between-status-checks", "1", "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10",
    "--set-threads", "convert=1", "evaluate=1", "--set-resources", "train:cluster=slurm", "train:partition=gpu",
    "train:nodes=2", "train:tasks_per_node=1", "train:gpus_per_node=1", "train:timeout_min=10", *TRAIN,
    "evaluate:slurm_partition=gpu", "evaluate:gpu=1", "evaluate:mem_mb=1000", "convert:mem_mb=1000",
)  # fmt: skip
TWO_RANKS_HERE = (*HERE, "--set-resources", "train:tasks_per_node=2", *TRAIN)
DEAD = "127.0.1.1"
"""The node whose daemon is killed."""

WRAPPER = """\
#!/bin/bash
echo "$*" >> "{folder}/calls.txt"
while [ -e "{folder}/hold-$1" ]; do sleep 0.1; done
exec {program} "$@"
"""
FAILING = """\
#!/bin/bash
echo "$*" >> "{folder}/sbatch-calls.txt"
if [ $(wc -l < "{folder}/sbatch-calls.txt") -le {times} ]; then
    echo "sbatch: error: Unable to contact slurm controller (connect failure)" >&2; exit 1
fi
exec {program} "$@"
"""


def _add_program(clone: Project, name: str, text: str, **fields: object) -> None:
    """Install a program of this name that shadows the real one."""
    program = clone.folder / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(text.format(folder=clone.folder, **fields))
    program.chmod(0o755)
    if not clone.environment["PATH"].startswith(f"{program.parent}:"):
        clone.environment["PATH"] = f"{program.parent}:{clone.environment['PATH']}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return the study run on this machine, with as many processes as on the cluster, and all scores by one job."""
    clone = Project(tmp_path_factory.mktemp("undisturbed") / "clone", stand_in=False)
    clone.configure(**STUDY)
    done = clone.snakemake(*TWO_RANKS_HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    return clone


@pytest.fixture
def clone(slurm: Path, project: Callable[..., Project]) -> Iterator[Project]:
    """Return a clone of the workflow whose calls are counted, with an empty queue."""
    _empty_queue()
    eventually(lambda: set(_ask("sinfo", "-h", "-o", "%T").split()) == {"idle"}, 60)
    made = project(stand_in=False)
    made.environment["PATH"] = f"{slurm}/bin:{made.environment['PATH']}"
    made.configure(**STUDY, evaluation=TWO)
    _add_program(made, "ccsd", WRAPPER, program=Path(sys.executable).parent / "ccsd")
    yield made
    for running in made.running:
        running.kill()
    _empty_queue()


def _empty_queue() -> None:
    subprocess.run(["scancel", "--full", "--me"], check=False)


def _ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _squeue(*options: str) -> list[str]:
    return _ask("squeue", "-h", "--me", *options).splitlines()


def _hold(clone: Project, stage: str) -> Path:
    mark: Path = clone.folder / f"hold-{stage}"
    mark.touch()
    return mark


def _occupy(partition: str, seconds: int) -> str:
    """Submit a job that wants all nodes of a partition; return its id."""
    size = ["-N2", "-n2", "--exclusive", "--mem=100"]
    return _ask("sbatch", "--parsable", "-p", partition, *size, "-o", "/dev/null", "--wrap", f"sleep {seconds}").strip()


def _again(clone: Project) -> Running:
    """Run the same command again: nothing needs unlocking."""
    return clone.start(*ON_SLURM)


def _ranks(clone: Project, attempt: int) -> list[psutil.Process]:
    """Return the training's processes in one attempt."""

    def is_rank(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            variables = process.environ()
            mine = "RANK" in variables and int(variables.get("SLURM_RESTART_COUNT", 0)) == attempt
            return mine and "--science" in process.cmdline()
        return False

    return [process for process in clone.alive() if is_rank(process)]


def _freeze(clone: Project, attempt: int) -> list[psutil.Process]:
    """Suspend a training that has progressed since its last start; return its two processes."""
    before = clone.steps_saved()
    eventually(lambda: clone.steps_saved() > before, 300)
    ranks = _ranks(clone, attempt)
    assert len(ranks) == 2
    for rank in ranks:
        rank.suspend()
    assert clone.steps_saved() < STEPS, "the training was over before it could be disturbed"
    return ranks


def _thaw(ranks: list[psutil.Process]) -> None:
    for rank in ranks:
        with contextlib.suppress(psutil.NoSuchProcess):
            rank.resume()


def _is_signalled(process: psutil.Process) -> bool:
    """Return whether a signal is pending for a suspended process, or has resumed it."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return True
    state, pending = (re.search(rf"^{name}:\s*(\w+)", status, re.MULTILINE) for name in ("State", "ShdPnd"))
    assert state is not None
    assert pending is not None
    return state[1].lower() != "t" or int(pending[1], 16) != 0


def _same_result(clone: Project, undisturbed: Project) -> None:
    assert clone.model_hash() == undisturbed.model_hash(), "the weights differ from those of the undisturbed run"
    rows = _scores(clone)
    subsets = {row[0] for row in rows}
    assert rows == [row for row in _scores(undisturbed) if row[0] in subsets]


def _scores(clone: Project) -> list[list[str]]:
    """Return the rows of metrics.tsv, the combination first."""
    head, *rows = [line.split("\t") for line in (clone.results / "metrics.tsv").read_text().splitlines()]
    at = head.index("subset")
    return sorted([row[at], *row] for row in rows)


def test_killed_in_every_stage_it_carries_on_and_repeats_nothing(
    slurm: Path, clone: Project, undisturbed: Project
) -> None:
    _add_program(clone, "sbatch", FAILING, program=slurm / "bin/sbatch", times=3)
    occupant = _occupy("cpu", 600)
    held = _hold(clone, "convert")
    first = clone.start(*ON_SLURM)
    eventually(lambda: [line for line in _squeue("-o", "%j %T %r") if line.endswith("PENDING Resources")], 90)
    time.sleep(5)
    assert first.process.poll() is None, "nothing times out while jobs wait for others"
    _ask("scancel", occupant)
    eventually(lambda: len(clone.calls("convert")) == 2, 120)
    first.kill()
    assert len(_squeue()) == 2, "the jobs of a killed Snakemake stay in the queue"

    second = _again(clone)
    eventually(lambda: "cancelled the jobs that an earlier Snakemake left" in second.log.read_text(), 120)
    held.unlink()
    ranks = _freeze(clone, 0)
    second.kill()
    assert [line for line in _squeue("-o", "%j") if line.startswith("ccsd-s0-")], "the training goes on"

    held = _hold(clone, "evaluate")
    third = _again(clone)
    eventually(lambda: "attached to job" in third.log.read_text(), 120)
    _thaw(ranks)
    eventually(lambda: len(clone.calls("evaluate")) == 2, 300)
    third.kill()

    fourth = _again(clone)
    eventually(lambda: len(clone.calls("evaluate")) == 4, 120)
    held.unlink()
    fourth.end()

    _same_result(clone, undisturbed)
    assert len(clone.calls("phantom")) == 1, "sbatch that failed at first was asked again"
    assert len(clone.calls("convert")) == 4, "each part was converted by its second job"
    assert len(clone.calls("split")) == 1
    assert len(clone.calls("evaluate")) == 4, "each combination was scored by its second job"
    assert [path.name for path in (clone.training / "job").iterdir() if path.name.isdigit()] == ["001"]
    assert not (clone.training / "job/001/requeues.tsv").exists(), "one training job, started once"


def test_whatever_ends_a_training_or_an_evaluation_the_scores_are_the_same(
    slurm: Path, clone: Project, undisturbed: Project
) -> None:
    from cluster.sandbox.daemons import daemons, start_node

    def kill_daemon() -> None:
        next(item for item in daemons(slurm) if item.cmdline()[-2:] == ["-N", DEAD]).kill()

    clone.configure(**STUDY, evaluation=ALL)
    held = _hold(clone, "evaluate")
    running = clone.start(*ON_SLURM, "evaluate:gpu=2")  # two for each node

    # Preempted by a higher partition, while another Snakemake has left the settings of a change that was rejected.
    ranks = _freeze(clone, 0)
    config = clone.results / "config.yaml"
    config.write_text(config.read_text().replace(f"steps: {STEPS}", f"steps: {STEPS + 1}"))
    _occupy("urgent", 2)
    eventually(lambda: all(_is_signalled(rank) for rank in ranks), 60)
    _thaw(ranks)
    requeues = clone.training / "job/001/requeues.tsv"
    eventually(requeues.exists, 60)
    job = _squeue("-p", "gpu", "-o", "%A")[0]

    # A node's daemon killed; the processes there live on and must not disturb their successors.
    _freeze(clone, 1)
    kill_daemon()
    eventually(lambda: _squeue("-j", job, "-o", "%T") == ["PENDING"], 120)
    start_node(slurm, DEAD)

    # The same during evaluations, and one of those that are left cancelled.
    eventually(lambda: len(clone.calls("evaluate")) == 4, 300)
    lost, kept = _squeue("-p", "gpu", "-w", DEAD, "-o", "%A"), _squeue("-p", "gpu", "-w", "127.0.1.2", "-o", "%A")
    assert (len(lost), len(kept)) == (2, 2)
    kill_daemon()
    _ask("scontrol", "update", f"nodename={DEAD}", "state=down", "reason=killed")  # sooner than SLURM notices by itself
    eventually(lambda: set(_squeue("-j", ",".join(lost), "-o", "%T")) == {"PENDING"}, 120)
    start_node(slurm, DEAD)
    eventually(lambda: _ask("sinfo", "-h", "-n", DEAD, "-p", "gpu", "-o", "%T").split()[0] in {"idle", "mixed"}, 60)
    _ask("scancel", kept[0])
    held.unlink()
    running.end()

    _same_result(clone, undisturbed)
    assert len({row[0] for row in _scores(clone)}) == 15
    assert len(clone.calls("evaluate")) == 4 + 3, "only the lost ones and the cancelled one were repeated"
    assert len(clone.calls("convert")) == 2
    log = next((clone.training / "job/001").glob("*_0_log.out")).read_text()
    resumed = [int(step) for step in re.findall(r"resuming from step (\d+)", log)]
    assert len(resumed) == 2
    assert resumed == sorted(set(resumed)), "each start resumes where the last one stopped"
    assert len(requeues.read_text().splitlines()) == 1


def test_a_failed_jobs_last_lines_are_shown(clone: Project) -> None:
    (clone.folder / "bin/ccsd").write_text("#!/bin/bash\necho 'error: the phantom cannot be drawn'\nexit 2\n")
    done = clone.snakemake(*ON_SLURM, "--retries", "0")
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count("error: the phantom cannot be drawn") == 1, done.stderr
    own = f"{clone.folder}/results/slurm-logs/study/rule_phantom/"
    assert f"phantom: FAILED (log: results/study/logs/phantom.log, {own}" in done.stderr


def test_only_the_jobs_of_the_studys_last_snakemake_are_cancelled(clone: Project) -> None:
    from cluster.snakemake import stale_jobs

    last, other = "ccsd_7b0c1e52-1111-4222-8333-0123456789ab", "ccsd_7b0c1e52-2222-4222-8333-0123456789ab"
    assert not stale_jobs.cancel_stale_jobs(clone.folder, last)
    for name in (last, last, other):
        _ask("sbatch", "-J", name, "--mem=10", "-o", "/dev/null", "--wrap", "sleep 300")
    eventually(lambda: len(_squeue()) == 3)
    assert stale_jobs.cancel_stale_jobs(clone.folder, "ccsd_next")
    assert _squeue("-o", "%j") == [other]
    assert not stale_jobs.cancel_stale_jobs(clone.folder, "ccsd_after")

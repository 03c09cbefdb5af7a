"""The launcher on a real SLURM of four nodes: ranks, failures, cancelling, preemption, time limits, outages."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.processes import Launcher, eventually

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(280)]

SLURM = ("cluster=slurm", "partition=gpu", "mem_gb=0.5", "timeout_min=5")
FOUR = (*SLURM, "nodes=2", "tasks_per_node=2", "gpus_per_node=2")

# Counts to STEPS in a file, the way a training does: on a signal it saves and asks to be started again. `go` in the
# folder lets it end; every start of every rank is noted.
WORK = """
import os, pathlib, signal, sys, time
here, rank = pathlib.Path(FOLDER), os.environ["RANK"]
stop = []
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: stop.append(number))
state = here / ("state-" + rank)
done = int(state.read_text()) if state.exists() else 0
with (here / "starts").open("a") as log:
    log.write(rank + " from " + str(done) + "\\n")
while done < STEPS or not (here / "go").exists():
    time.sleep(0.1)
    done += 1
    state.write_text(str(done))
    if stop:
        print("saved at", done, "after signal", stop[0])
        sys.exit(75)
print("ended at", done)
"""
SHOW = """
import json, os, pathlib
keys = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "SLURMD_NODENAME")
pathlib.Path(FOLDER, "seen-" + os.environ["RANK"]).write_text(json.dumps({key: os.environ.get(key) for key in keys}))
"""


def _code(template: str, folder: Path, steps: int = 1) -> str:
    return f"FOLDER, STEPS = {str(folder)!r}, {steps}\n{template}"


def _slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _starts(folder: Path) -> list[str]:
    path = folder / "starts"
    return path.read_text().splitlines() if path.exists() else []


def _job(folder: Path) -> str:
    return str(json.loads((folder / "run" / "job.json").read_text())["job_id"])


@pytest.fixture(autouse=True)
def _empty_queue(slurm: Path) -> None:
    """Begin with no jobs and all nodes idle."""
    subprocess.run(["scancel", "--full", "--me"], check=False)
    eventually(lambda: _slurm("squeue", "-h") == "" and set(_slurm("sinfo", "-h", "-o", "%T").split()) == {"idle"}, 60)


@pytest.mark.parametrize("name", ["plain", "two 'words'", 'new\nline "quoted" $HOME'])
def test_ranks_on_two_nodes_meet_whatever_the_folder_is_called(name: str, tmp_path: Path, launcher: Launcher) -> None:
    folder = tmp_path / name / "run"
    done = launcher.run(_code(SHOW, tmp_path), folder, *FOUR)
    assert done.returncode == 0, done.stderr
    seen = [json.loads((tmp_path / f"seen-{rank}").read_text()) for rank in range(4)]
    assert [item["RANK"] for item in seen] == ["0", "1", "2", "3"]
    assert [item["LOCAL_RANK"] for item in seen] == ["0", "1", "0", "1"]
    assert [item["SLURMD_NODENAME"] for item in seen] == ["127.0.1.1"] * 2 + ["127.0.1.2"] * 2
    assert {item["CUDA_VISIBLE_DEVICES"] for item in seen} == {"0,1"}
    assert {item["MASTER_ADDR"] for item in seen} == {"127.0.1.1"}
    assert len({item["MASTER_PORT"] for item in seen}) == 1


@pytest.mark.parametrize(
    ("options", "visible"),
    [
        (["gpus_per_node=h100:2"], {"0,1"}),
        (["extra.gres=gpu:h100:2"], {"0,1"}),
        (["extra.gpus-per-task=1", "extra.mem-per-cpu=100M", "mem_gb="], {"0", "1", "0,1"}),
        (["gpus_per_node=2", "extra.gpu-bind=single:1", "mem_gb="], {"0", "1", "0,1"}),
    ],
)
def test_gpus_and_memory_are_asked_for_as_the_site_wants_it(
    options: list[str], visible: set[str], tmp_path: Path, launcher: Launcher
) -> None:
    done = launcher.run(_code(SHOW, tmp_path), tmp_path / "run", *SLURM, "tasks_per_node=2", *options)
    assert done.returncode == 0, done.stderr
    seen = {json.loads((tmp_path / f"seen-{rank}").read_text())["CUDA_VISIBLE_DEVICES"] for rank in range(2)}
    assert seen <= visible


def test_a_job_inside_a_job_gets_its_own_size(tmp_path: Path, launcher: Launcher) -> None:
    launcher.environment |= {"SLURM_MEM_PER_NODE": "7", "SLURM_NTASKS": "9", "SLURM_JOB_ID": "1", "RANK": "5"}
    done = launcher.run(_code(SHOW, tmp_path), tmp_path / "run", *SLURM)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "seen-0").read_text())["WORLD_SIZE"] == "1"


def test_a_failing_rank_ends_the_job_and_its_last_lines_are_shown(tmp_path: Path, launcher: Launcher) -> None:
    code = "import os, time\nif os.environ['RANK'] == '3': raise ValueError('the tumour is too large')\ntime.sleep(600)"
    begun = time.monotonic()
    done = launcher.run(code, tmp_path / "run", *FOUR)
    assert done.returncode == 1
    assert "process 3" in done.stderr
    assert "ValueError: the tumour is too large" in done.stderr
    assert time.monotonic() - begun < 60


def test_a_rejected_job_says_what_sbatch_said_at_once(tmp_path: Path, launcher: Launcher) -> None:
    done = launcher.run("pass", tmp_path / "run", "cluster=slurm", "partition=nonexistent")
    assert done.returncode == 1
    assert "could not be submitted" in done.stderr
    assert "sbatch rejected the job:\nsbatch: error: invalid partition" in done.stderr
    assert done.stderr.count("invalid partition") == 1


@pytest.mark.parametrize("lost_record", [False, True])
def test_a_killed_launcher_leaves_the_job_and_the_next_one_attaches(
    lost_record: bool, tmp_path: Path, launcher: Launcher
) -> None:
    code = _code(WORK, tmp_path)
    first = launcher.start(code, tmp_path / "run", *FOUR)
    eventually(lambda: len(_starts(tmp_path)) == 4)
    first.kill()
    first.wait()
    if lost_record:
        (tmp_path / "run/job.json").unlink()
    second = launcher.start(code, tmp_path / "run", *FOUR)
    assert "attached to job" in (second.stdout.readline() if second.stdout else "")
    (tmp_path / "go").touch()
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert len(_starts(tmp_path)) == 4


def test_an_interrupted_launcher_says_that_the_job_goes_on(tmp_path: Path, launcher: Launcher) -> None:
    process = launcher.start(_code(WORK, tmp_path), tmp_path / "run", *SLURM)
    eventually(lambda: len(_starts(tmp_path)) == 1)
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"scancel {_job(tmp_path)}" in out
    assert _slurm("squeue", "-h", "-o", "%T").split() == ["RUNNING"]


def test_no_ranks_start_on_this_machine_while_the_job_of_the_run_is_alive(tmp_path: Path, launcher: Launcher) -> None:
    process = launcher.start(_code(WORK, tmp_path), tmp_path / "run", *SLURM)
    eventually(lambda: len(_starts(tmp_path)) == 1)
    here = launcher.run(_code(WORK, tmp_path), tmp_path / "run")
    assert here.returncode == 1
    assert f"job {_job(tmp_path)} of this run is still active on the SLURM cluster" in here.stderr
    (tmp_path / "go").touch()
    assert process.wait(timeout=60) == 0
    assert launcher.run(_code(WORK, tmp_path), tmp_path / "run").returncode == 0
    assert len(_starts(tmp_path)) == 2


def test_a_cancelled_job_stays_cancelled(tmp_path: Path, launcher: Launcher) -> None:
    process = launcher.start(_code(WORK, tmp_path), tmp_path / "run", *FOUR)
    eventually(lambda: len(_starts(tmp_path)) == 4)
    _slurm("scancel", _job(tmp_path))
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "CANCELLED" in err
    time.sleep(8)  # longer than a requeued job would wait
    assert _slurm("squeue", "-h") == ""
    assert len(_starts(tmp_path)) == 4


def test_preemption_requeues_and_the_job_resumes(tmp_path: Path, launcher: Launcher) -> None:
    process = launcher.start(_code(WORK, tmp_path), tmp_path / "run", *FOUR)
    eventually(lambda: len(_starts(tmp_path)) == 4)
    _slurm("sbatch", "-p", "urgent", "-N2", "-n2", "--exclusive", "--mem=100", "-o", "/dev/null", "--wrap", "sleep 5")
    eventually(lambda: len(_starts(tmp_path)) == 8, 120)
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert "saved at" in out
    assert "is pending" in out
    assert all(not line.endswith("from 0") for line in _starts(tmp_path)[4:])
    assert len((tmp_path / "run/001/requeues.tsv").read_text().splitlines()) == 1


def test_the_time_limit_requeues_and_the_job_resumes(tmp_path: Path, launcher: Launcher) -> None:
    process = launcher.start(_code(WORK, tmp_path), tmp_path / "run", *SLURM, "signal_delay_s=50")
    eventually(lambda: len(_starts(tmp_path)) == 1)
    # SLURM looks at limits twice a minute: one so short from the beginning may be signalled before Python has started.
    _slurm("scontrol", "update", f"jobid={_job(tmp_path)}", "timelimit=1")
    eventually((tmp_path / "run/001/requeues.tsv").exists, 90)
    _slurm("scontrol", "update", f"jobid={_job(tmp_path)}", "timelimit=5")
    eventually(lambda: len(_starts(tmp_path)) == 2, 60)
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "after signal 12" in out
    assert not _starts(tmp_path)[1].endswith("from 0")


def test_a_job_may_wait_in_the_queue_for_as_long_as_it_takes(tmp_path: Path, launcher: Launcher) -> None:
    launcher.environment["LAUNCH_TEST_PATIENCE"] = "2"  # a job that waits is known, however short the patience
    _slurm("scontrol", "update", "partitionname=gpu", "state=down")
    try:
        process = launcher.start(_code(SHOW, tmp_path), tmp_path / "run", *SLURM)
        time.sleep(8)
        assert process.poll() is None
        assert _slurm("squeue", "-h", "-o", "%T").split() == ["PENDING"]
    finally:
        _slurm("scontrol", "update", "partitionname=gpu", "state=up")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "is pending (PartitionDown: its partition is closed until an administrator opens it)" in out


def test_a_job_that_will_never_start_says_so(tmp_path: Path, launcher: Launcher) -> None:
    process = launcher.start(_code(SHOW, tmp_path), tmp_path / "run", *SLURM[:3], "timeout_min=60-00:00:00")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert re.search(r"is pending \(Partition(TimeLimit|Config): .* will not start as it is\)", lines[1])
    process.terminate()
    process.communicate(timeout=30)


def test_what_the_shell_sets_for_sbatch_does_not_overrule_the_settings(tmp_path: Path, launcher: Launcher) -> None:
    launcher.environment |= {
        "SBATCH_TIMELIMIT": "3", "SBATCH_PARTITION": "cpu", "SBATCH_NO_REQUEUE": "1", "SBATCH_EXPORT": "NONE",
        "SBATCH_ACCOUNT": "theirs", "SBATCH_ARRAY_INX": "1-3",
    }  # fmt: skip
    texts = ("account=00123", "timeout_min=2-00")
    process = launcher.start(_code(WORK, tmp_path), tmp_path / "run", *SLURM[:3], *texts)
    eventually(lambda: len(_starts(tmp_path)) == 1)
    shown = _slurm("squeue", "-h", "-o", "%P|%a|%l")
    job = _slurm("scontrol", "show", "job", _job(tmp_path))
    (tmp_path / "go").touch()
    process.communicate(timeout=60)
    assert shown == "gpu|00123|2-00:00:00\n"
    assert "Requeue=1" in job
    assert process.returncode == 0


def _failing(folder: Path, slurm: Path, program: str, times: int) -> Path:
    """Put a program in front of a SLURM command that fails some times before it lets calls through."""
    wrapper = folder / "wrappers" / program
    wrapper.parent.mkdir()
    counter = folder / f"{program}-calls"
    wrapper.write_text(
        f"#!/bin/sh\necho x >> {counter}\n"
        f"if [ $(wc -l < {counter}) -le {times} ]; then\n"
        f'  echo "{program}: error: Unable to contact slurm controller (connect failure)" >&2; exit 1\nfi\n'
        f'exec {slurm}/bin/{program} "$@"\n'
    )
    wrapper.chmod(0o755)
    return counter


def test_sbatch_that_fails_for_a_while_is_asked_again(slurm: Path, tmp_path: Path, launcher: Launcher) -> None:
    counter = _failing(tmp_path, slurm, "sbatch", times=2)
    launcher.environment["PATH"] = f"{tmp_path}/wrappers:{os.environ['PATH']}"
    done = launcher.run(_code(SHOW, tmp_path), tmp_path / "run", *SLURM)
    assert done.returncode == 0, done.stderr
    assert len(counter.read_text().splitlines()) == 3
    assert "SLURM did not accept the job (Unable to contact slurm controller (connect failure)); next" in done.stdout


def test_a_queue_that_does_not_answer_is_waited_for(slurm: Path, tmp_path: Path, launcher: Launcher) -> None:
    _failing(tmp_path, slurm, "squeue", times=6)
    launcher.environment["PATH"] = f"{tmp_path}/wrappers:{os.environ['PATH']}"
    process = launcher.start(_code(WORK, tmp_path), tmp_path / "run", *SLURM)
    eventually(lambda: len(_starts(tmp_path)) == 1)
    time.sleep(5)
    (tmp_path / "go").touch()
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert len(_starts(tmp_path)) == 1


def test_a_killed_owner_takes_its_cluster_along(tmp_path: Path) -> None:
    from cluster.sandbox.daemons import daemons

    hold = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'cluster.sandbox', 'hold'])"
    owner = subprocess.Popen(
        [sys.executable, "-c", hold],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    base = Path(owner.stdout.readline().strip())
    assert len(daemons(base)) >= 6
    owner.kill()
    owner.wait()
    eventually(lambda: daemons(base) == [] and not base.exists(), 30)
    owner.stdout.close()

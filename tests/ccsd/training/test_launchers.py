"""`ccsd train` under torchrun, under a bare srun, and as ranks of its own launcher, which may be killed."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ccsd.cli.train import _tried
from ccsd.config import load_config
from ccsd.errors import UsageError
from ccsd.model import load_model
from support.comparing import WEIGHT, assert_close, weights
from support.plain import plain_training
from support.processes import eventually

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
SRUN = ["srun", "--nodes", "2", "--ntasks-per-node", "1", "--kill-on-bad-exit"]


def train_under(launcher: list[str], inputs: Path, run: Path) -> subprocess.CompletedProcess[str]:
    train = [sys.executable, "-m", "ccsd", "train", "--config", str(inputs / "tiny.yaml")]
    one_machine = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu"}
    return subprocess.run(
        [*launcher, "--", *train, "--data", str(inputs / "data"), "--run", str(run)],
        env=os.environ | one_machine, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def assert_trained_together(inputs: Path, run: Path) -> None:
    _, final = plain_training(load_config(inputs / "tiny.yaml"), inputs / "data")
    assert_close(final, weights(run), WEIGHT)
    assert load_model(run).record.processes == 2


@pytest.mark.slow
def test_torchrun(inputs: Path, tmp_path: Path) -> None:
    done = train_under(TORCHRUN, inputs, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_trained_together(inputs, tmp_path)


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
def test_srun_on_two_nodes(inputs: Path, tmp_path: Path) -> None:
    done = train_under(SRUN, inputs, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_trained_together(inputs, tmp_path)


ENDING = """
import atexit, sys
from ccsd.cli import main
from ccsd.training import loop
atexit.register(print, "Python's own clean-up")
loop.train = lambda *_, **__: print("trained") or 75
sys.argv[0] = "ccsd"
main()
"""


@pytest.mark.parametrize(
    ("world", "lines"),
    [pytest.param("1", ["trained", "Python's own clean-up"], marks=pytest.mark.slow), ("2", ["trained"])],
)
def test_one_of_several_processes_ends_before_a_thread_can_disturb_its_clean_up(
    inputs: Path, tmp_path: Path, world: str, lines: list[str]
) -> None:
    words = ["train", "--config", inputs / "tiny.yaml", "--data", inputs / "data", "--run", tmp_path / "run"]
    launched = {"WORLD_SIZE": world, "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ENDING, *map(str, words)],
        env=os.environ | launched, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 75, done.stderr
    assert done.stdout.splitlines() == lines


CONTAINER = """\
#!/bin/sh
[ "$1" = exec ] && [ "$2" = "an image.sif" ] || exit 9
shift 2
echo "in the container of rank ${{RANK:-none}}" >&2
program=$1; shift
[ "$program" = python ] && exec {python} "$@"
"""


@pytest.fixture
def container(tmp_path: Path) -> str:
    """Return a command that stands for a container's: it leads to this Python, and says so."""
    path = tmp_path / "container"
    path.write_text(CONTAINER.format(python=sys.executable))
    path.chmod(0o755)
    return f"{path} exec 'an image.sif' python"


def train_in(container: str, inputs: Path, run: Path, *job: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ccsd", "train", "--config", str(inputs / "tiny.yaml")]
    command += [word for setting in ("train.steps=2", "train.validate_every=2") for word in ("--set", setting)]
    command += [word for setting in (*job, f"python={container}") for word in ("--job", setting)]
    command += ["--data", str(inputs / "data"), "--run", str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def assert_ran_inside(run: Path, pattern: str) -> None:
    logs = {path.name: path.read_text() for path in sorted((run / "job" / "001").glob(pattern))}
    assert len(logs) == 2
    assert all(f"in the container of rank {rank}" in text for rank, text in enumerate(logs.values())), logs


def test_ranks_run_in_a_container(inputs: Path, tmp_path: Path, container: str) -> None:
    script = Path(container.split(maxsplit=1)[0])
    script.write_text(script.read_text().replace("shift 2\n", 'shift 2\n[ "$4" = train ] && set -- python -c "1"\n'))
    done = train_in(container, inputs, tmp_path / "run", "tasks_per_node=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_ran_inside(tmp_path / "run", "local_*_log.out")


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
def test_ranks_of_a_slurm_job_run_in_a_container(inputs: Path, tmp_path: Path, container: str) -> None:
    job = ("cluster=slurm", "nodes=2", "partition=gpu", "mem_gb=0.5", "timeout_min=5")
    done = train_in(container, inputs, tmp_path / "run", *job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_ran_inside(tmp_path / "run", "*_[01]_log.out")
    assert load_model(tmp_path / "run").record.processes == 2


def test_a_container_that_does_not_have_this_version_is_rejected(tmp_path: Path) -> None:
    rejected = {"echo 0.0.9": "has ccsd 0.0.9, but this is", "echo no image >&2; exit 255": "start ccsd: no image"}
    for line, words in rejected.items():
        (tmp_path / "other").write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "other").chmod(0o755)
        with pytest.raises(UsageError, match=words):
            _tried([f"{tmp_path}/other", "python"])


def start_two_ranks(inputs: Path, run: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "ccsd", "train", "--config", str(inputs / "tiny.yaml")]
    settings = ("train.steps=12", "train.validate_every=12", "runtime.checkpoint_every=2", "runtime.workers=1")
    command += [word for setting in settings for word in ("--set", setting)]
    command += ["--job", "tasks_per_node=2", "--data", str(inputs / "data"), "--run", str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_training_whose_launcher_is_killed_ends_with_it_and_resumes_to_the_same_weights(
    inputs: Path, tmp_path: Path
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    text, _ = start_two_ranks(inputs, undisturbed).communicate(timeout=200)
    assert (undisturbed / "model.safetensors").exists(), text

    launcher = start_two_ranks(inputs, killed)
    eventually(lambda: list(killed.glob("checkpoints/step-*")), 120)
    ranks = psutil.Process(launcher.pid).children(recursive=True)
    assert len(ranks) >= 4, "two ranks, each with a worker"
    launcher.kill()
    launcher.communicate()
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert not alive
    assert not (killed / "model.safetensors").exists(), "the training was over before it could be killed"

    text, _ = start_two_ranks(inputs, killed).communicate(timeout=200)
    assert "resuming from step" in text
    assert (undisturbed / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()

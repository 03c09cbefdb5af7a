"""Jobs on one machine: ranks, failures, interrupts, and no orphans."""

import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

SHOW = """
import json, os, pathlib
keys = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME", "CUDA_VISIBLE_DEVICES")
values = {key: os.environ.get(key) for key in keys}
pathlib.Path(FOLDER, "seen-" + os.environ["RANK"]).write_text(json.dumps(values))
print("hello from", os.environ["RANK"])
"""
SLEEP = """
import os, pathlib, subprocess, sys, time
rank = os.environ["RANK"]
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with pathlib.Path(FOLDER, "starts").open("a") as log:
    log.write(rank + "\\n")
pathlib.Path(FOLDER, "up-" + rank).touch()
while not pathlib.Path(FOLDER, "go").exists():
    time.sleep(0.05)
helper.kill()
helper.wait()
"""
HOSTILE = ["plain", "two words", 'quote\'s "and" more', "new\nline", "$HOME `id` ; echo", "ümlaut 脑", "-dash", "#hash"]


def _code(template: str, folder: Path) -> str:
    return f"FOLDER = {str(folder)!r}\n{template}"


@pytest.mark.parametrize("name", HOSTILE)
def test_ranks_meet_whatever_the_folder_is_called(name: str, tmp_path: Path, launcher: Any) -> None:
    folder = tmp_path / name / "run"
    done = launcher.run(_code(SHOW, tmp_path), folder, "tasks_per_node=2")
    assert done.returncode == 0, done.stderr
    assert "hello from 0" in done.stdout
    assert "hello from 1" not in done.stdout
    seen = [json.loads((tmp_path / f"seen-{rank}").read_text()) for rank in range(2)]
    assert [item["RANK"] for item in seen] == ["0", "1"]
    assert [item["LOCAL_RANK"] for item in seen] == ["0", "1"]
    assert {item["WORLD_SIZE"] for item in seen} == {"2"}
    assert {item["MASTER_ADDR"] for item in seen} == {"127.0.0.1"}
    assert {item["GLOO_SOCKET_IFNAME"] for item in seen} == {"lo"}
    assert {item["CUDA_VISIBLE_DEVICES"] for item in seen} == {""}
    assert len({item["MASTER_PORT"] for item in seen}) == 1
    assert json.loads((folder / "job.json").read_text())["ended"] == "ok"


@pytest.mark.parametrize("name", ["100%j", "back\\slash"])
def test_names_that_job_managers_rewrite_are_refused(name: str, tmp_path: Path, launcher: Any) -> None:
    done = launcher.run("pass", tmp_path / name)
    assert done.returncode == 1
    assert done.stderr.startswith("SettingsError: ")
    assert "rename the folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_failing_rank_takes_the_others_down_and_speaks_last(tmp_path: Path, launcher: Any) -> None:
    code = """
import os, sys, time
if os.environ["RANK"] == "1":
    time.sleep(0.5)
    raise ValueError("the tumour is too large")
time.sleep(600)
"""
    done = launcher.run(code, tmp_path / "run", "tasks_per_node=2")
    assert done.returncode == 1
    assert "rank 1" in done.stderr
    assert "exit code 1" in done.stderr
    assert "ValueError: the tumour is too large" in done.stderr
    assert str(tmp_path / "run" / "001") in done.stderr
    assert launcher.wait_until_gone(5) == []


def test_a_killed_rank_is_told_apart_from_a_failed_one(tmp_path: Path, launcher: Any) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = launcher.run(code, tmp_path / "run")
    assert done.returncode == 1
    assert "SIGKILL" in done.stderr
    assert "memory" in done.stderr


def test_exit_code_75_starts_the_command_again(tmp_path: Path, launcher: Any) -> None:
    code = f"""
import os, pathlib, sys
tries = pathlib.Path({str(tmp_path)!r}, "tries-" + os.environ["RANK"])
with tries.open("a") as log:
    log.write("x")
sys.exit(75 if len(tries.read_text()) < 3 else 0)
"""
    done = launcher.run(code, tmp_path / "run", "tasks_per_node=2")
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"tries-{rank}").read_text() for rank in range(2)] == ["xxx", "xxx"]
    assert len((tmp_path / "run/001/requeues.tsv").read_text().splitlines()) == 2


def test_asking_again_for_ever_is_given_up(tmp_path: Path, launcher: Any) -> None:
    done = launcher.run("import sys; sys.exit(75)", tmp_path / "run", "max_requeues=1")
    assert done.returncode == 1
    assert "max_requeues=1 reached" in done.stderr
    assert len((tmp_path / "run/001/requeues.tsv").read_text().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_ranks_and_their_helpers(
    number: signal.Signals, tmp_path: Path, launcher: Any, eventually: Callable[..., Any]
) -> None:
    process = launcher.start(_code(SLEEP, tmp_path), tmp_path / "run", "tasks_per_node=2")
    eventually(lambda: (tmp_path / "up-0").exists() and (tmp_path / "up-1").exists())
    process.send_signal(number)
    assert process.wait(timeout=30) == 130
    assert launcher.wait_until_gone(5) == []


def test_ranks_that_ignore_term_are_killed(tmp_path: Path, launcher: Any, eventually: Callable[..., Any]) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
    process = launcher.start(_code(stubborn, tmp_path), tmp_path / "run", "tasks_per_node=2")
    eventually(lambda: (tmp_path / "up-0").exists() and (tmp_path / "up-1").exists())
    process.terminate()
    assert process.wait(timeout=60) == 130
    assert launcher.wait_until_gone(5) == []


@pytest.mark.parametrize("clock", [0, 3600], ids=["", "the-clock-was-set-back"])
def test_a_killed_launcher_leaves_the_job_and_the_next_one_attaches(
    clock: int, tmp_path: Path, launcher: Any, eventually: Callable[..., Any]
) -> None:
    code = _code(SLEEP, tmp_path)
    first = launcher.start(code, tmp_path / "run", "tasks_per_node=2")
    eventually(lambda: (tmp_path / "up-0").exists() and (tmp_path / "up-1").exists())
    first.kill()
    first.wait()
    launcher.environment["LAUNCH_TEST_CLOCK"] = str(clock)
    second = launcher.start(code, tmp_path / "run", "tasks_per_node=2")
    assert "attached to local job" in (second.stdout.readline() if second.stdout else "")
    (tmp_path / "go").touch()
    assert second.wait(timeout=30) == 0
    assert sorted((tmp_path / "starts").read_text().split()) == ["0", "1"]
    assert launcher.wait_until_gone(5) == []


def test_other_work_in_the_same_folder_is_refused_while_a_job_is_alive(
    tmp_path: Path, launcher: Any, eventually: Callable[..., Any]
) -> None:
    first = launcher.start(_code(SLEEP, tmp_path), tmp_path / "run")
    eventually((tmp_path / "up-0").exists)
    done = launcher.run("print('something else')", tmp_path / "run")
    assert done.returncode == 1
    assert "runs another command" in done.stderr
    (tmp_path / "go").touch()
    assert first.wait(timeout=30) == 0


def test_a_vanished_rank_does_not_leave_the_others_waiting(
    tmp_path: Path, launcher: Any, eventually: Callable[..., Any]
) -> None:
    process = launcher.start(_code(SLEEP, tmp_path), tmp_path / "run", "tasks_per_node=2")
    eventually(lambda: (tmp_path / "run/001/rank-1.json").exists() and (tmp_path / "up-1").exists())
    wrapper = json.loads((tmp_path / "run/001/rank-1.json").read_text())["pid"]
    next(item for item in launcher.alive() if item.pid == wrapper).kill()
    assert process.wait(timeout=60) == 1
    assert launcher.wait_until_gone(5) == []


def test_a_rank_that_vanishes_before_it_could_say_anything_is_missed(
    tmp_path: Path, launcher: Any, eventually: Callable[..., Any]
) -> None:
    launcher.environment["LAUNCH_TEST_SUSPICION"] = "1"
    process = launcher.start(_code(SLEEP, tmp_path), tmp_path / "run", "tasks_per_node=2")
    wrapper = eventually(lambda: _wrapper_of_rank(launcher, 1))
    wrapper.kill()
    assert not (tmp_path / "run/001/rank-1.json").exists(), "too late"
    assert process.wait(timeout=60) == 1
    assert launcher.wait_until_gone(5) == []


def _wrapper_of_rank(launcher: Any, rank: int) -> Any:
    """Return the process that submitit just started for a rank."""
    for process in launcher.alive():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SUBMITIT_LOCAL_GLOBALID") == str(rank):
                return process
    return None


@pytest.mark.parametrize("launcher_too", [False, True], ids=["", "and-the-launcher"])
def test_ranks_of_a_killed_controller_do_not_run_beside_the_next_job(
    launcher_too: bool, tmp_path: Path, launcher: Any, eventually: Callable[..., Any]
) -> None:
    code = _code(SLEEP, tmp_path)
    first = launcher.start(code, tmp_path / "run", "tasks_per_node=2")
    eventually(lambda: (tmp_path / "up-0").exists() and (tmp_path / "up-1").exists())
    ranks = {process.pid for process in launcher.alive() if "RANK" in process.environ()}
    if launcher_too:
        first.kill()
        first.wait()
    controller = int(json.loads((tmp_path / "run/job.json").read_text())["job_id"])
    next(process for process in launcher.alive() if process.pid == controller).kill()
    if not launcher_too:
        assert first.wait(timeout=60) == 1
        assert launcher.wait_until_gone(5) == []
    for rank in range(2):
        (tmp_path / f"up-{rank}").unlink()
    second = launcher.start(code, tmp_path / "run", "tasks_per_node=2")
    eventually(lambda: (tmp_path / "up-0").exists() and (tmp_path / "up-1").exists())
    assert not ranks & {process.pid for process in launcher.alive()}
    (tmp_path / "go").touch()
    assert second.wait(timeout=30) == 0


def test_a_job_that_cannot_be_submitted_says_why(tmp_path: Path, launcher: Any) -> None:
    launcher.environment["CUDA_VISIBLE_DEVICES"] = "3"
    done = launcher.run("pass", tmp_path / "run", "gpus_per_node=2")
    assert done.returncode == 1
    assert "could not be submitted" in done.stderr
    assert "gpus_per_node=2" in done.stderr


def test_every_rank_has_its_own_threads_whatever_the_launcher_had(tmp_path: Path, launcher: Any) -> None:
    launcher.environment |= {"OMP_NUM_THREADS": "7", "MKL_NUM_THREADS": "7"}
    code = "import os; print('threads', os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"
    done = launcher.run(code, tmp_path / "run", "cpus_per_task=3")
    assert "threads 3 3" in done.stdout, done.stderr


def test_the_users_choice_of_gpus_is_kept(tmp_path: Path, launcher: Any) -> None:
    launcher.environment["CUDA_VISIBLE_DEVICES"] = "5,GPU-abc,7"
    done = launcher.run(_code(SHOW, tmp_path), tmp_path / "run", "gpus_per_node=2")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "seen-0").read_text())["CUDA_VISIBLE_DEVICES"] == "5,GPU-abc"

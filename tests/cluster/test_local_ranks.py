"""Ranks on one machine: failures, interrupts, and none that outlives its launcher."""

import json
import signal
import time
from pathlib import Path

import pytest

from support.hostile import SECRETS, files_with_secrets
from support.processes import Launcher, eventually

SHOW = """
import json, os, pathlib
keys = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME", "CUDA_VISIBLE_DEVICES")
values = {key: os.environ.get(key) for key in keys}
pathlib.Path(FOLDER, "seen-" + os.environ["RANK"]).write_text(json.dumps(values))
print("hello from", os.environ["RANK"])
"""
SAVE = """
import os, pathlib, signal, sys
def save(number, frame):
    pathlib.Path(FOLDER, "saved-" + os.environ["RANK"]).touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
"""
HELPER = """
import subprocess, sys
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
"""
SLEEP = """
import os, pathlib, time
rank = os.environ["RANK"]
with pathlib.Path(FOLDER, "starts").open("a") as log:
    log.write(rank + "\\n")
pathlib.Path(FOLDER, "up-" + rank).touch()
while not pathlib.Path(FOLDER, "go").exists():
    time.sleep(0.05)
"""
HOSTILE = ["plain", "two words", 'quote\'s "and" more', "new\nline", "$HOME `id` ; echo", "ümlaut 脑", "-dash", "#hash"]


def _code(template: str, folder: Path) -> str:
    return f"FOLDER = {str(folder)!r}\n{template}"


@pytest.mark.parametrize("name", HOSTILE)
def test_ranks_meet_whatever_the_folder_is_called(name: str, tmp_path: Path, launcher: Launcher) -> None:
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
    assert "hello from 1" in (folder / "001/local_1_log.out").read_text()


@pytest.mark.parametrize("name", ["100%j", "back\\slash"])
def test_names_that_job_managers_rewrite_are_rejected(name: str, tmp_path: Path, launcher: Launcher) -> None:
    done = launcher.run("pass", tmp_path / name, "cluster=slurm")
    assert done.returncode == 1
    assert done.stderr.startswith("SettingsError: ")
    assert "rename the folder" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert launcher.run("pass", tmp_path / name).returncode == 0


def test_a_failing_rank_ends_the_others_and_its_last_lines_are_shown(tmp_path: Path, launcher: Launcher) -> None:
    code = """
import os, sys, time
if os.environ["RANK"] == "1":
    time.sleep(0.5)
    raise ValueError("the tumour is too large")
time.sleep(600)
"""
    done = launcher.run(code, tmp_path / "run", "tasks_per_node=2")
    assert done.returncode == 1
    assert "process 1" in done.stderr
    assert "exit code 1" in done.stderr
    assert "ValueError: the tumour is too large" in done.stderr
    assert str(tmp_path / "run" / "001") in done.stderr
    assert launcher.wait_until_gone(5) == []


def test_a_killed_rank_is_told_apart_from_a_failed_one(tmp_path: Path, launcher: Launcher) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = launcher.run(code, tmp_path / "run")
    assert done.returncode == 1
    assert "SIGKILL" in done.stderr
    assert "memory" in done.stderr


def test_ranks_that_were_asked_to_stop_are_not_started_again(tmp_path: Path, launcher: Launcher) -> None:
    code = "import sys; print('started', flush=True); sys.exit(75)"
    done = launcher.run(code, tmp_path / "run", "tasks_per_node=2")
    assert done.returncode == 75, done.stderr
    assert done.stdout.splitlines().count("started") == 1
    assert "run the same command again to resume" in done.stdout


def test_a_rank_that_fails_while_another_stops_fails_the_job(tmp_path: Path, launcher: Launcher) -> None:
    code = "import os, sys, time; rank = int(os.environ['RANK']); time.sleep(rank); sys.exit((75, 3)[rank])"
    done = launcher.run(code, tmp_path / "run", "tasks_per_node=2")
    assert done.returncode == 1
    assert "process 1" in done.stderr
    assert "exit code 3" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_lets_the_ranks_save_and_ends_their_helpers(
    number: signal.Signals, tmp_path: Path, launcher: Launcher
) -> None:
    process = launcher.start(_code(SAVE + HELPER + SLEEP, tmp_path), tmp_path / "run", "tasks_per_node=2")
    eventually(lambda: (tmp_path / "up-0").exists() and (tmp_path / "up-1").exists())
    process.send_signal(number)
    assert process.wait(timeout=30) == 130
    assert (tmp_path / "saved-0").exists()
    assert (tmp_path / "saved-1").exists()
    assert launcher.wait_until_gone(5) == []


@pytest.mark.parametrize("second", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_that_sends_two_signals_loses_nothing(
    second: signal.Signals, tmp_path: Path, launcher: Launcher
) -> None:
    slow = SAVE.replace("    pathlib", "    import time; time.sleep(1.5)\n    pathlib")
    process = launcher.start(_code(slow + SLEEP, tmp_path), tmp_path / "run")
    eventually((tmp_path / "up-0").exists)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    process.send_signal(second)
    assert process.wait(timeout=30) == 130
    assert (tmp_path / "saved-0").exists()


def test_ranks_that_ignore_term_are_killed_by_a_second_interrupt(tmp_path: Path, launcher: Launcher) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HELPER + SLEEP
    process = launcher.start(_code(stubborn, tmp_path), tmp_path / "run", "tasks_per_node=2")
    eventually(lambda: (tmp_path / "up-0").exists() and (tmp_path / "up-1").exists())
    began = time.monotonic()
    process.terminate()
    process.stdout.readline()
    assert "Ctrl-C again" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - began < 10
    assert launcher.wait_until_gone(5) == []


@pytest.mark.slow
def test_ranks_that_ignore_term_are_killed_after_some_time(tmp_path: Path, launcher: Launcher) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HELPER + SLEEP
    process = launcher.start(_code(stubborn, tmp_path), tmp_path / "run", "signal_delay_s=3")
    eventually((tmp_path / "up-0").exists)
    process.terminate()
    assert process.wait(timeout=60) == 130
    assert launcher.wait_until_gone(5) == []


def test_ranks_end_with_a_killed_launcher_and_the_next_one_restarts_them(tmp_path: Path, launcher: Launcher) -> None:
    code = _code(SLEEP, tmp_path)
    first = launcher.start(code, tmp_path / "run", "tasks_per_node=2")
    eventually(lambda: (tmp_path / "up-0").exists() and (tmp_path / "up-1").exists())
    first.kill()
    assert launcher.wait_until_gone(5) == []
    (tmp_path / "go").touch()
    done = launcher.run(code, tmp_path / "run", "tasks_per_node=2")
    assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "starts").read_text().split()) == ["0", "0", "1", "1"]


def test_a_second_launcher_of_a_run_names_the_first_and_waits_for_it(tmp_path: Path, launcher: Launcher) -> None:
    first = launcher.start(_code(SLEEP, tmp_path), tmp_path / "run")
    eventually((tmp_path / "up-0").exists)
    second = launcher.start(_code(SLEEP, tmp_path), tmp_path / "run")
    line = second.stdout.readline()
    assert "waiting for another launcher" in line
    assert f"process {first.pid} on" in line
    assert (tmp_path / "starts").read_text().split() == ["0"]
    (tmp_path / "go").touch()
    assert first.wait(timeout=30) == second.wait(timeout=30) == 0
    assert (tmp_path / "starts").read_text().split() == ["0", "0"]


def test_more_gpus_than_are_visible_are_rejected(tmp_path: Path, launcher: Launcher) -> None:
    launcher.environment["CUDA_VISIBLE_DEVICES"] = "3"
    done = launcher.run("pass", tmp_path / "run", "gpus_per_node=2", "tasks_per_node=2")
    assert done.returncode == 1
    assert "gpus_per_node=2, but CUDA_VISIBLE_DEVICES='3' shows 1" in done.stderr


def test_every_rank_has_its_own_threads_whatever_the_launcher_had(tmp_path: Path, launcher: Launcher) -> None:
    launcher.environment |= {"OMP_NUM_THREADS": "7", "MKL_NUM_THREADS": "7"}
    code = "import os; print('threads', os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"
    done = launcher.run(code, tmp_path / "run", "cpus_per_task=3")
    assert "threads 3 3" in done.stdout, done.stderr


def test_the_users_choice_of_gpus_is_kept(tmp_path: Path, launcher: Launcher) -> None:
    launcher.environment["CUDA_VISIBLE_DEVICES"] = "5,GPU-abc,7"
    done = launcher.run(_code(SHOW, tmp_path), tmp_path / "run", "gpus_per_node=2", "tasks_per_node=2")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "seen-0").read_text())["CUDA_VISIBLE_DEVICES"] == "5,GPU-abc"


def test_the_ranks_are_told_how_many_gpus_were_asked_for(tmp_path: Path, launcher: Launcher) -> None:
    code = "import os; print('promised', os.environ['CCSD_GPUS_PER_NODE'])"
    done = launcher.run(code, tmp_path / "run", "gpus_per_node=2", "tasks_per_node=2")
    assert "promised 2" in done.stdout, done.stderr


@pytest.mark.parametrize("code", ["print('done')", "raise SystemExit('failed')"])
def test_no_secret_of_the_environment_is_written(code: str, tmp_path: Path, launcher: Launcher) -> None:
    launcher.environment |= SECRETS
    done = launcher.run(code, tmp_path / "run", "tasks_per_node=2")
    assert "secret-" not in done.stdout + done.stderr
    assert len(list(tmp_path.rglob("*"))) > 4
    assert files_with_secrets(tmp_path) == []

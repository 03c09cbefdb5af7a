"""The lock of a Snakemake that was killed goes; that of one that lives, or of another machine, stays."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.snakemake import lock

HOLDER = """\
import sys, time
from pathlib import Path
from cluster.snakemake import lock
print(lock.drop_stale(Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lock = tmp_path / "locks" / "0.output.lock"
    lock.parent.mkdir()
    lock.write_text("results/study/report.html\n")
    return tmp_path


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    while lock._held:
        lock._held.pop().close()


@pytest.fixture
def hold(folder: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Return a function that starts a process which claims the folder and lives on."""
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLDER, str(folder)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        started[-1].told = started[-1].stdout.readline().strip()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lock_again(folder: Path) -> Path:
    lock = folder / "locks" / "0.input.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("results/study/data/split.tsv\n")
    return lock


def test_the_lock_of_a_killed_one_is_dropped(folder: Path, hold: Callable[..., "subprocess.Popen[str]"]) -> None:
    first = hold()
    assert first.told == "dropped the lock of an earlier Snakemake that was killed"
    made = lock_again(folder)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert "dropped" in lock.drop_stale(folder)
    assert not made.exists()


def test_the_lock_of_a_living_one_stays(folder: Path, hold: Callable[..., "subprocess.Popen[str]"]) -> None:
    hold()
    made = lock_again(folder)
    assert lock.drop_stale(folder) == ""
    assert made.exists()


def test_as_long_as_any_of_several_lives_the_lock_stays(
    folder: Path, hold: Callable[..., "subprocess.Popen[str]"]
) -> None:
    first, _second = hold(), hold()
    made = lock_again(folder)
    first.kill()
    first.wait()
    assert lock.drop_stale(folder) == ""
    assert made.exists()


def test_the_lock_of_another_machine_stays_however_often_one_looks(folder: Path) -> None:
    (folder / lock.RUNNING).write_text("login2")
    for _ in range(2):
        assert lock.drop_stale(folder) == (
            "locked by a Snakemake on login2; if none runs there any more, add --unlock once"
        )
        lock._held.pop().close()
        assert list((folder / "locks").iterdir())


def test_a_folder_that_cannot_be_written_is_left_to_snakemake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert lock.drop_stale(tmp_path / "file") == ""


def test_without_a_lock_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert lock.drop_stale(tmp_path / "new") == ""

"""One Snakemake per study: the lock names who has it, and ends with its process."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import JobError
from cluster.snakemake import lock

HOLDER = """\
import subprocess, sys, time
from pathlib import Path
from cluster.snakemake import lock
lock.hold_study(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    lock._held.close()


def test_a_study_is_held_until_its_process_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "study")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(JobError, match=f"another Snakemake is working on this study .process {holder.pid} on"):
        lock.hold_study(tmp_path / "study")
    lock.hold_study(tmp_path / "other")
    holder.kill()
    holder.communicate()
    lock.hold_study(tmp_path / "study")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match="file cannot be written"):
        lock.hold_study(tmp_path / "file")

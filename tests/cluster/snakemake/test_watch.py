"""Between Snakemake and what submits for it: files in a folder that Snakemakes on several machines share."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import patience
from cluster.snakemake import watch


def test_only_what_a_dead_process_of_this_machine_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = socket.gethostname()
    monkeypatch.setattr(watch, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    monkeypatch.setattr(watch.atexit, "register", lambda *_, **__: None)
    for name in (patience.SNAKEMAKE, patience.STOP, "CLUSTER_LINES"):
        monkeypatch.setenv(name, "")  # restored at the end
    dead = 2**22 + 1  # above every number of a process
    for name in (f"login2.{dead}.lines", f"{here}.{dead}.lines", f"{here}.{os.getppid()}.stop"):
        (tmp_path / name).touch()
    watch.start(tmp_path, scheduler=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"login2.{dead}.lines", f"{here}.{os.getppid()}.stop", f"{here}.{os.getpid()}.lines"]
    )
    assert os.environ[patience.STOP] == str(tmp_path / f"{here}.{os.getpid()}.stop")

"""A launcher whose ranks are killed at the test's end."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import Launcher


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    found = Launcher(str(tmp_path))
    yield found
    for process in found.alive():
        process.send_signal(signal.SIGKILL)
    for started in found.started:
        started.communicate(timeout=20)

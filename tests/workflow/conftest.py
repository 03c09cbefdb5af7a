"""Copies of the workflow, and an undisturbed study."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.projects import HERE, TINY, Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Return a function that makes a clone; what still runs in one at the test's end is killed."""
    made: list[Project] = []

    def make(name: str = "clone", *, stand_in: bool = True) -> Project:
        made.append(Project(tmp_path / name, stand_in=stand_in))
        return made[-1]

    yield make
    for running in (running for project in made for running in project.running):
        running.kill()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return the tiny study run in one go, with how many seconds that took."""
    clone = Project(tmp_path_factory.mktemp("undisturbed") / "clone", stand_in=False)
    clone.configure(**TINY)
    began = time.monotonic()
    done = clone.snakemake(*HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    clone.seconds = time.monotonic() - began
    return clone

"""How many cores a process may use."""

import os

import pytest

from preprocess.parallel import given_cores


@pytest.mark.parametrize(("slurm", "cores"), [("4", 4), ("16", 8), ("", 8), ("0", 8), ("many", 8), (None, 8)], ids=str)
def test_cores_are_those_of_the_system_or_the_fewer_of_slurm(
    monkeypatch: pytest.MonkeyPatch, slurm: str | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if slurm is not None:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm)
    assert given_cores() == cores

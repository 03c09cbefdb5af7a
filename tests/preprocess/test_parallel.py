"""How many cores a process may use."""

import os

import pytest

from preprocess import parallel
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


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 8), (None, 8), ("1600000 100000", 8)]
)
def test_a_container_may_have_fewer_cores(monkeypatch: pytest.MonkeyPatch, quota: str | None, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(parallel, "cgroup_limit", {"cpu.max": quota}.get)
    assert given_cores() == cores

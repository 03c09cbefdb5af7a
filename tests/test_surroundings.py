"""Machines that lack something: a home folder, locks, folders that can be flushed, a short temporary folder."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.waiting import exclusive
from preprocess import files
from preprocess.files import sync, write_text
from support.processes import ccsd
from support.projects import HERE, TINY, Project


def _failing(number: int) -> Callable[..., None]:
    def fail(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK], ids=errno.errorcode.get)
def test_without_locks_it_goes_on_and_says_so_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fcntl, "flock", _failing(number))
    for _ in range(2):
        with exclusive(tmp_path / ".lock", pytest.fail):
            pass
    assert capsys.readouterr().err.count("this file system has no locks (flock)") == 1


def test_an_error_of_a_lock_that_means_something_else_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", _failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"), exclusive(tmp_path / ".lock", pytest.fail):
        pass


def test_folders_that_cannot_be_flushed_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "fsync", _failing(errno.EINVAL))
    monkeypatch.setattr(files, "_WARNED", set())
    for name in ("one", "two"):  # stores of several folders
        (tmp_path / name / "image/c").mkdir(parents=True)
        sync(tmp_path / name)
    assert capsys.readouterr().err.count("this file system cannot flush folders") == 1
    with pytest.raises(OSError, match="Invalid argument"):
        write_text(tmp_path / "file", "a file that cannot be flushed is an error")


@pytest.mark.slow
def test_worker_processes_start_under_a_long_temporary_folder(cohort: Path, tmp_path: Path) -> None:
    long = tmp_path / ("t" * 100)
    long.mkdir()
    for name in ("pred", "ref"):
        (tmp_path / name).mkdir()
        for case in sorted(cohort.iterdir())[:2]:
            (tmp_path / name / f"{case.name}.nii.gz").symlink_to(next(case.glob("*seg.nii*")))
    folders = ("--pred", tmp_path / "pred", "--ref", tmp_path / "ref", "--out", tmp_path / "out")
    done = ccsd("evaluate", *folders, "--workers", 2, env={**os.environ, "TMPDIR": str(long)})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_snakemake_starts_without_a_home_folder(tmp_path: Path) -> None:
    clone = Project(tmp_path / "clone")
    clone.configure(**TINY)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        clone.environment.pop(name, None)
    done = clone.snakemake(*HERE, "--until", "phantom", HOME="/proc/nowhere")
    assert done.returncode == 0, done.stderr
    assert (clone.folder / ".snakemake/cache/snakemake").is_dir()

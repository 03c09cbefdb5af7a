"""`make env` never clears an environment that may be in use, this checkout's or another's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

PYTHON = """#!/bin/sh
case "$1" in
-c) echo {version} ;;
*) echo "$@" >> "$(dirname "$0")/../called" ;;
esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment in use: its Python only writes down what it is asked to do."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    write_python(folder, f"{sys.version_info[0]}.{sys.version_info[1]}")
    (folder / "used-by-a-job").touch()
    return folder


def write_python(folder: Path, version: str) -> None:
    (folder / "bin/python").write_text(PYTHON.format(version=version))
    (folder / "bin/python").chmod(0o755)


def make_env(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / ".ci/make-env"), str(folder), sys.executable]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"})


def test_an_environment_in_use_is_brought_up_to_date_in_place(environment: Path) -> None:
    done = make_env(environment)
    assert done.returncode == 0, done.stderr
    assert (environment / "used-by-a-job").exists()
    called = (environment / "called").read_text().splitlines()
    assert [line.split()[-1] for line in called] == ["torch", ".[dev]"]
    assert all("pip" in line and "install" in line for line in called)


def test_a_link_to_another_checkouts_environment_is_rejected(environment: Path, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(environment)
    done = make_env(tmp_path / ".venv")
    assert done.returncode == 1
    assert f"is a link to {environment}" in done.stderr
    assert (environment / "used-by-a-job").exists()
    assert not (environment / "called").exists()


@pytest.mark.parametrize("version", ["2.7", ""])
def test_an_environment_of_another_python_is_left_to_its_user(environment: Path, version: str) -> None:
    write_python(environment, version)
    done = make_env(environment)
    assert done.returncode == 1
    assert f"remove it (rm -r {environment})" in done.stderr
    assert (environment / "used-by-a-job").exists()

"""A process keeps its birth, whatever the clock says; no other process has it."""

import os
import subprocess
import sys

import psutil
import pytest

from cluster.birth import birth


def test_a_birth_is_one_process_and_ends_with_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = birth(child.pid)
    assert born is not None
    assert born == birth(child.pid) != birth(os.getpid())
    child.communicate(b"\n")
    assert birth(child.pid) is None


def test_it_is_the_time_that_the_kernel_tells() -> None:
    me = psutil.Process()
    boot, ticks = (birth(me.pid) or "").split()
    assert len(boot) == 36
    since_boot = int(ticks) / os.sysconf("SC_CLK_TCK")
    assert since_boot == pytest.approx(me.create_time() - psutil.boot_time(), abs=1)


def test_names_of_programs_do_not_confuse_it(tmp_path: object) -> None:
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b') R 1 2 (x'); print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    before = birth(child.pid)
    child.stdout.readline()
    assert birth(child.pid) == before is not None
    child.communicate(b"\n")

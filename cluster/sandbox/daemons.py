"""Start, find and end the processes of a throw-away cluster."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from cluster.sandbox import accounting
from cluster.sandbox.config import Layout
from cluster.waiting import wait_until

MARK = "THROWAWAY_SLURM"
"""Environment variable of every daemon; its value is the cluster's folder."""

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
DRAIN_S = 8.0
_STARTED: list[subprocess.Popen[bytes]] = []
"""Kept because Python warns about forgotten processes. Any process can find them by their mark."""


def find_program(name: str) -> str | None:
    """Return the path of a program; system daemons are often not on a user's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")


def start(base: Path, layout: Layout, ports: range) -> None:
    """Start munge, accounting if wanted, the controller and one daemon per node."""
    munge = [
        "munged", "--foreground", "--force", f"--key-file={base}/etc/munge.key", f"--socket={base}/run/munge.sock",
        f"--pid-file={base}/run/munged.pid", f"--log-file={base}/log/munged.log",
        f"--seed-file={base}/state/munge.seed", "--num-threads=4",
    ]  # fmt: skip
    _spawn(base, munge, "munged")
    wait_until((base / "run/munge.sock").exists, 20, 0.02)
    if layout.accounting:
        accounting.start(base, ports[-2:], partial(_spawn, base), find_program)
    _spawn(base, ["slurmctld", "-D", "-i"], "slurmctld")
    for node in layout.nodes:
        start_node(base, node)


def start_node(base: Path, node: str) -> None:
    """Start the daemon of one node, e.g. again after it was killed."""
    (base / "spool" / node).mkdir(exist_ok=True)
    _spawn(base, ["slurmd", "-D", "-N", node], f"slurmd.{node}")


def answers_idle(base: Path, nodes: Sequence[str]) -> bool:
    """Return whether the controller answers and all nodes are idle."""
    asked = subprocess.run(
        [str(base / "bin/sinfo"), "-h", "-N", "-o", "%N %T"], capture_output=True, text=True, check=False
    )
    return set(asked.stdout.splitlines()) == {f"{node} idle" for node in nodes}


def daemons(base: Path) -> list[psutil.Process]:
    """Return the cluster's processes: daemons, and the steps of jobs whose daemon is gone."""
    conf = str(base / "etc/slurm.conf")
    found = []
    for process in psutil.process_iter():
        try:
            variables = process.environ()
            in_job = variables.get("SLURM_CONF") == conf and "SLURM_JOB_ID" in variables
            if variables.get(MARK) == str(base) or in_job:
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.pid != os.getpid()]


def stop(base: Path) -> None:
    """Cancel all jobs, end the daemons, and kill whatever is left, with its children."""
    if (base / "bin/scancel").exists() and daemons(base):
        _cancel_all(base)
    for process in daemons(base):
        _signal(process, kill=False)
    wait_until(lambda: not daemons(base), DRAIN_S)
    left = daemons(base)
    children = [child for process in left for child in _children(process)]
    for process in [*left, *children]:
        _signal(process, kill=True)


def _cancel_all(base: Path) -> None:
    """Cancel the jobs and wait until they have ended; give up if the controller does not answer."""
    queue = [str(base / "bin/squeue"), "-h", "-t", "R,CG,S", "-o", "%i"]

    def is_empty() -> bool:
        return not subprocess.run(queue, timeout=10, capture_output=True, text=True, check=False).stdout.strip()

    with suppress(subprocess.TimeoutExpired):
        subprocess.run([str(base / "bin/scancel"), "--full", "--me"], timeout=10, capture_output=True, check=False)
        wait_until(is_empty, DRAIN_S)


def _spawn(base: Path, command: Sequence[str], log: str) -> None:
    program = find_program(command[0])
    assert program is not None, command[0]
    environment = {**os.environ, "SLURM_CONF": str(base / "etc/slurm.conf"), MARK: str(base)}
    with (base / "log" / f"{log}.out").open("ab") as output:
        process = subprocess.Popen(
            [program, *command[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _STARTED.append(process)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []

"""Bring a throw-away cluster up and down, and remove the clusters of dead owners."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

from cluster.errors import JobError
from cluster.sandbox import accounting
from cluster.sandbox.config import Layout, environment, write_files
from cluster.sandbox.daemons import answers_idle, daemons, find_program, start, stop
from cluster.waiting import wait_until

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
PACKAGES = "slurmctld slurmd slurm-client munge"
LONGEST_BASE = 60
"""munge and slurmstepd have sockets below the folder, and a socket's path may have at most 108 bytes."""

UP_TIMEOUT_S = 60.0
HELD_PREFIX = "slurm-held-"
OWNER = "owner"

_owned: list[IO[str]] = []
"""Files that stay open, and thus locked, until this process ends."""


def missing(*, with_accounting: bool = False) -> list[str]:
    """Return the programs that are not installed."""
    needed = [*PROGRAMS, *(accounting.PROGRAMS if with_accounting else ())]
    return [name for name in needed if find_program(name) is None]


def install(*, with_accounting: bool = False) -> str:
    """Return the command that installs what is needed, on Debian and Ubuntu."""
    packages = f"{PACKAGES} {accounting.PACKAGES}" if with_accounting else PACKAGES
    return f"sudo apt-get install --no-install-recommends {packages}"


def up(base: Path, layout: Layout | None = None) -> dict[str, str]:
    """Bring a cluster up and return when all of its nodes are idle.

    Returns
    -------
    dict
        Environment variables to set for using it.

    Raises
    ------
    JobError
        If programs are missing, the folder's name is too long, a cluster already runs there, or it does not come up.
    """
    base, layout = base.absolute(), layout or Layout()
    absent = missing(with_accounting=layout.accounting)
    if absent:
        command = install(with_accounting=layout.accounting)
        raise JobError(f"not installed: {', '.join(absent)}; install them with\n  {command}")
    if len(os.fsencode(base)) > LONGEST_BASE or any(not (char.isalnum() or char in "/-_.") for char in str(base)):
        raise JobError(f"{base}: use a folder with a short, plain name, e.g. {tempfile.gettempdir()}/slurm")
    if daemons(base):
        raise JobError(
            f"{base}: a cluster is running there; use it, or end it with `make slurm-down` "
            f"(`python -m cluster.sandbox down {base}`)"
        )
    try:
        start(base, layout, write_files(base, layout))
        is_up = wait_until(lambda: answers_idle(base, layout.nodes), UP_TIMEOUT_S, 0.05)
    except BaseException:
        stop(base)
        raise
    if not is_up:
        stop(base)
        raise JobError(f"the cluster did not come up within {UP_TIMEOUT_S:.0f} s; its logs are in {base / 'log'}")
    return environment(base)


def down(base: Path) -> None:
    """End everything that belongs to the cluster; its logs stay in `base`/log."""
    stop(base.absolute())


def hold(layout: Layout | None = None) -> Path:
    """Bring a cluster up in a temporary folder that belongs to this process, after removing those of dead owners."""
    sweep()
    base = Path(tempfile.mkdtemp(prefix=HELD_PREFIX, dir="/tmp"))
    _owned.append((base / OWNER).open("w", encoding="utf-8"))
    fcntl.flock(_owned[-1], fcntl.LOCK_EX)
    up(base, layout)
    return base


def release(base: Path) -> None:
    """End a held cluster and remove its folder."""
    down(base)
    shutil.rmtree(base, ignore_errors=True)


def sweep() -> None:
    """Remove held clusters whose owner died without releasing them."""
    for base in Path("/tmp").glob(f"{HELD_PREFIX}*"):  # noqa: S108
        if not _owner_lives(base):
            release(base)


def _owner_lives(base: Path) -> bool:
    """Return whether the process that holds a cluster is alive: its file lock ends with it."""
    try:
        with (base / OWNER).open(encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False

"""The lock of a Snakemake that was killed, removed when no other one runs in the folder.

Snakemake's lock files name what is locked, not who locks it: after a crash it asks for `--unlock` although nothing runs
any more. Here every Snakemake also holds a shared lock of the operating system, which ends with its process whatever
ends that. Whoever gets it exclusively is alone, and what Snakemake's lock files say is out of date.
"""

import fcntl
import shutil
import socket
from pathlib import Path
from typing import IO

RUNNING = "running"
LOCKS = "locks"

_held: list[IO[str]] = []
"""Open until this process ends, and with it the locks."""


def drop_stale(folder: Path) -> str:
    """Claim a Snakemake folder for as long as this process lives; drop lock files there that nobody holds.

    A lock of another machine is left alone: not every shared file system tells machines of each other's locks.

    Parameters
    ----------
    folder
        Snakemake's own folder, `.snakemake`.

    Returns
    -------
    str
        What to tell the user; empty when there was no lock, or its owner is alive.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / RUNNING).open("a+", encoding="utf-8")
    except OSError:  # Snakemake will say what it cannot write
        return ""
    _held.append(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(handle, fcntl.LOCK_SH)
        return ""
    except OSError:  # a file system without such locks
        return ""
    found = _drop(folder / LOCKS, handle)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return found


def _drop(locks: Path, handle: IO[str]) -> str:
    """Drop the lock files, unless those who made them ran on another machine; then write down this machine."""
    there, here = any(locks.glob("*.lock")), socket.gethostname()
    handle.seek(0)
    owner = handle.read()
    if there and owner not in ("", here):
        return f"locked by a Snakemake on {owner}; if none runs there any more, add --unlock once"
    handle.truncate(0)
    handle.write(here)
    handle.flush()
    if not there:
        return ""
    shutil.rmtree(locks)
    return "dropped the lock of an earlier Snakemake that was killed"

"""Wait for a condition by polling, and for a lock."""

import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)
"""Error codes of file systems without locks: Lustre without -o flock, some FUSE ones, NFS without its lock daemon."""


def wait_until(condition: Callable[[], object], seconds: float, pause_s: float = 0.1) -> bool:
    """Return True as soon as `condition` holds; False if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True


@contextmanager
def exclusive(path: Path, when_held: Callable[[str], object]) -> Iterator[None]:
    """Hold the lock of a file, which the kernel releases when this process ends, for whatever reason.

    If another process holds it, `when_held` is called with a description of that process; then this one waits. Child
    processes do not inherit the lock. If the file system has no locks, this prints a warning and continues without.
    """
    with path.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            when_held(handle.read())
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            _warn_of_no_locks(path.parent)
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield


@cache
def _warn_of_no_locks(folder: Path) -> None:
    text = f"{folder}: this file system has no locks (flock); do not start anything twice, it would not be detected"
    print(f"warning: {text}", file=sys.stderr, flush=True)

"""Waiting: for something that is only known by looking, and for a lock."""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def wait_until(condition: Callable[[], object], seconds: float, pause_s: float = 0.1) -> bool:
    """Return as soon as `condition` holds; false when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True


@contextmanager
def exclusive(path: Path, when_held: Callable[[str], object]) -> Iterator[None]:
    """Hold the lock of a file, which the kernel releases when this process ends, whatever ends it.

    While another process holds it, `when_held` is called with the words for that process; then this one waits. Children
    do not inherit the lock.
    """
    with path.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            when_held(handle.read())
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield

"""Waiting for something that is only known by looking."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float, pause_s: float = 0.1) -> bool:
    """Return as soon as `condition` holds; false when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True

"""Stop at the end of a step: signals and the time limit only set a flag, which the loop checks."""

import signal
import time
from types import FrameType

import psutil

from cluster.task import REQUEUE_CODE

RESERVE = 2.0
"""How many of the longest steps so far (with validation and saving) are kept in reserve before the time limit."""


class StopRequest:
    """Remembers that SIGTERM, SIGUSR2 or SIGINT arrived, and watches the time; a second SIGINT interrupts at once."""

    def __init__(self, minutes: float | None = None) -> None:
        self.signal: signal.Signals | None = None
        self._asked = time.monotonic()
        self._longest = 0.0
        age = time.time() - psutil.Process().create_time()
        # From here on the monotonic clock is used, which nobody can set.
        self._end = None if minutes is None else time.monotonic() - age + 60 * minutes
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, self._remember)

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else the code that asks to be started again."""
        return 130 if self.signal == signal.SIGINT else REQUEUE_CODE

    def requested(self, now: float | None = None) -> bool:
        """Return whether to stop now.

        Call this after every step and within a validation: it measures the longest time between two calls.
        """
        now = time.monotonic() if now is None else now
        self._longest = max(self._longest, now - self._asked)
        self._asked = now
        return self.signal is not None or (self._end is not None and now + RESERVE * self._longest > self._end)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

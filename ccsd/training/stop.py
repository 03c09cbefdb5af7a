"""Stopping at the end of a step: signals only set a flag, the loop asks for it."""

import signal
from types import FrameType

REQUEUE_CODE = 75
"""Exit code after a requested stop: the state is saved, start the same command again (EX_TEMPFAIL)."""


class StopRequest:
    """Remembers that SIGTERM, SIGUSR2 or SIGINT came; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, self._remember)

    @property
    def requested(self) -> bool:
        """Whether to stop after the current step."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else the code that asks to be started again."""
        return 130 if self.signal == signal.SIGINT else REQUEUE_CODE

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

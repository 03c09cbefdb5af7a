"""The command line, with a SIGTERM to itself after a given step: `driver.py STEP ccsd-arguments...`."""

import os
import signal
import sys

from ccsd.cli import main
from ccsd.training import loop

stop_at = int(sys.argv.pop(1))
original = loop._Training._step


def step_then_stop(self: loop._Training, *args: object) -> dict[str, float]:
    times = original(self, *args)  # type: ignore[arg-type]
    if self.step == stop_at:
        os.kill(os.getpid(), signal.SIGTERM)
    return times


loop._Training._step = step_then_stop  # type: ignore[method-assign]
main()

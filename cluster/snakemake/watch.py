"""Connect Snakemake with the processes that submit for it: show their lines, and tell them when it ends.

Snakemake's executor does not show what sbatch prints. On TERM it waits for all running jobs, and those that are still
waiting to be submitted count as running.
"""

import atexit
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from cluster import slurm_queries
from cluster.patience import SNAKEMAKE, STOP

_LINES = "CLUSTER_LINES"
"""Environment variable: the file whose lines Snakemake shows."""

_POLL_S = 1.0
_ASK_S = 30.0
"""Seconds between two checks of why jobs wait."""


def start(folder: Path, scheduler: Any) -> None:
    """Start to show lines and why jobs wait, and to announce the end of this Snakemake.

    Its files stay in `folder` until it ends.
    """
    if not folder.is_dir():
        return  # there is no SLURM
    here = socket.gethostname()  # on another login node, the same number belongs to another process
    for left in folder.glob(f"{here}.[0-9]*.*"):
        if not Path("/proc", left.stem.rpartition(".")[2]).exists():
            left.unlink(missing_ok=True)
    lines, stop = (folder / f"{here}.{os.getpid()}.{name}" for name in ("lines", "stop"))
    lines.touch()
    stop.unlink(missing_ok=True)
    os.environ |= {SNAKEMAKE: str(os.getpid()), STOP: str(stop), _LINES: str(lines)}
    atexit.register(lines.unlink, missing_ok=True)
    atexit.register(stop.unlink, missing_ok=True)
    Thread(target=_watch, args=(scheduler, lines, stop), daemon=True).start()


def note(line: str) -> None:
    """Have the Snakemake that called this process show a line."""
    with suppress(OSError, KeyError), Path(os.environ[_LINES]).open("a", encoding="utf-8") as lines:
        lines.write(f"{line}\n")


def _watch(scheduler: Any, lines: Path, stop: Path) -> None:
    shown, reasons, ask_at = 0, dict[str, int](), time.monotonic() + _ASK_S
    while True:
        with suppress(OSError):
            text = lines.read_text(encoding="utf-8")[shown:]
            shown += len(text)
            _show(text)
            if _is_asked_to_end(scheduler):
                stop.touch()
            if time.monotonic() > ask_at:
                reasons, ask_at = _show_reasons(scheduler, reasons), time.monotonic() + _ASK_S
        time.sleep(_POLL_S)


def _show_reasons(scheduler: Any, known: dict[str, int]) -> dict[str, int]:
    """Show new reasons why Snakemake's jobs wait in the queue; return the reasons with numbers of jobs."""
    name = getattr(getattr(scheduler, "_executor", None), "run_uuid", None)
    found = slurm_queries.waiting(name) if name else {}
    for reason, count in found.items():
        if reason not in known:
            _show(f"{count} job{'s wait' if count > 1 else ' waits'} in the queue ({slurm_queries.explain(reason)})\n")
    return {**known, **found} if found else {}


def _is_asked_to_end(scheduler: Any) -> bool:
    """Return whether TERM or Ctrl-C arrived, after which the executor accepts no more submissions."""
    submissions = getattr(getattr(scheduler, "_executor", None), "_job_submission_executor", None)
    return bool(getattr(scheduler, "_user_kill", None) or getattr(submissions, "_shutdown", False))


def _show(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)

"""Naming a process for good: its number may be another's tomorrow."""

from pathlib import Path

START_TIME = 19
"""Place of the start time in /proc/PID/stat, counted from behind the program's name (proc(5), field 22)."""


def birth(pid: int) -> str | None:
    """Return when a process was started, None when it is gone: which boot of the machine, and clock ticks since then.

    Unlike a time of day it stays the same when the clock is set.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return f"{boot} {stat.rpartition(')')[2].split()[START_TIME]}"

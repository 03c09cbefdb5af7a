"""Values that can be written in more than one way: time limits, and GPUs with and without a type."""

import re
from typing import Any

_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")
_UNITS = {"m": 1, "h": 60, "d": 24 * 60}
_GPUS = re.compile(r"[A-Za-z][\w.-]*:[1-9]\d*")


def minutes(value: Any) -> Any:
    """Return a time limit in whole minutes, rounded up; a value that is not text is returned unchanged.

    Text is read as SLURM reads it: MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, DAYS-HOURS, DAYS-HOURS:MINUTES,
    DAYS-HOURS:MINUTES:SECONDS. In addition, a number may have one unit: 90m, 24h, 2d.

    Raises
    ------
    ValueError
        If the text has any other form; the message says what is allowed.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[-1:] in _UNITS and text[:-1].isdecimal():
        return int(text[:-1]) * _UNITS[text[-1]]
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError(
            "not a time limit; write minutes (1440), hours:minutes:seconds (24:00:00), days-hours:minutes:seconds "
            "(2-00:00:00), or a number with a unit (90m, 24h, 2d)"
        )
    return -(-_seconds(found) // 60)


def _seconds(found: re.Match[str]) -> int:
    """Return a SLURM time in seconds; its first number is hours after days or before two more numbers, else minutes."""
    days, first, second, third = (int(found[name] or 0) for name in ("days", "first", "second", "third"))
    if found["days"] is not None or found["third"] is not None:
        return ((24 * days + first) * 60 + second) * 60 + third
    return 60 * first + second


def gpu_count(value: Any) -> Any:
    """Return a number of GPUs as an integer, and TYPE:NUMBER unchanged.

    Raises
    ------
    ValueError
        If it is neither.
    """
    text = str(value).strip()
    if text.isdecimal():
        return int(text)
    if not _GPUS.fullmatch(text):
        raise ValueError("not a number of GPUs; write a number (2) or, on slurm, a type and a number (a100:2)")
    return text

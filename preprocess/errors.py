"""Errors about input data, written for the person who has to correct the input."""

from collections.abc import Sequence

RAW_SCANS = "see docs/how-to/raw-scans.md"
"""Where messages about images that are not registered or skull-stripped refer to."""


class InputError(ValueError):
    """Input that cannot be used; the message says what, where, what is allowed and what to do next."""


def counted(number: int, word: str) -> str:
    """Return `1 case`, `2 cases`."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def first_few(names: Sequence[str], shown: int = 5, separator: str = ", ") -> str:
    """Return the first names and how many follow: `a, b, and 3 more`."""
    more = [f"and {len(names) - shown} more"] if len(names) > shown else []
    return separator.join([*names[:shown], *more])

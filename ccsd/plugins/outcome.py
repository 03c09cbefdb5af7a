"""The outcome of one check of a plugin, and the line that is printed for it."""

from collections.abc import Callable
from dataclasses import dataclass

WIDTH = 24


@dataclass(frozen=True)
class Outcome:
    """One check: what was expected, what was found, and what to do if they differ."""

    name: str
    passed: bool
    expected: str
    found: str
    advice: str

    def __str__(self) -> str:
        mark, advice = ("ok", "") if self.passed else ("FAIL", f". {self.advice}")
        return f"{mark:4}  {self.name + ':':{WIDTH}} expected {self.expected}; found {self.found}{advice}"


Check = Callable[[], Outcome]


def outcome_of(name: str, check: Check) -> Outcome:
    """Run a check; an error in the plugin is a failure."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - the code is someone else's
        text = " ".join(str(error).split())[:600]
        return Outcome(name, False, "no error", f"{type(error).__name__}: {text}", "Fix this first")

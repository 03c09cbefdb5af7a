"""What one check of a plugin found, as the line that is printed."""

from collections.abc import Callable
from dataclasses import dataclass

WIDTH = 24


@dataclass(frozen=True)
class Outcome:
    """One check: what was expected, what came out, and what to do if that is something else."""

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
    """Run a check; an error of the plugin's is a failure."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - the code is someone else's
        text = " ".join(str(error).split())[:600]
        return Outcome(name, False, "no error", f"{type(error).__name__}: {text}", "Correct this first")

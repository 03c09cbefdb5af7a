"""Decide when a difference between experiments is clear, with respect to other cases and other training seeds."""

import math
from collections.abc import Iterable
from typing import Any, Literal

FEWEST_CASES = 6
"""With fewer pairs, a signed-rank test cannot reach p < 0.05, and a bootstrap interval means little."""
Certainty = Literal["clear", "one seed", "unclear"]
"""Certainty of a difference; "one seed": it is clear over cases, but other seeds were not tried."""
MARKS: dict[Certainty, str] = {"clear": "*", "one seed": "(*)", "unclear": ""}


def certainty(row: dict[str, Any]) -> Certainty:
    """Return whether a difference is clear: its interval over cases and its range over seeds lie on one side of 0.

    If one of the two has fewer than two seeds, other seeds are unknown, and the difference is only clear over cases.
    """
    enough = row["cases"] >= FEWEST_CASES
    above = row["low"] > 0 and row["seeds_low"] > 0
    below = row["high"] < 0 and row["seeds_high"] < 0
    if not (enough and (above or below)):
        return "unclear"
    return "clear" if min(row["seeds"], row["baseline_seeds"]) > 1 else "one seed"


def seed_range(row: dict[str, Any]) -> tuple[float, float] | None:
    """Return the least and the greatest difference between seeds; None if each side has only one."""
    if row["seeds"] * row["baseline_seeds"] == 1 or math.isnan(row["seeds_low"]):
        return None
    return float(row["seeds_low"]), float(row["seeds_high"])


def comparable(names: list[str], pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return experiments in groups, in their order; the experiments of a pair, which share cases, share a group."""
    groups = [[name] for name in names]
    for pair in pairs:
        one = [group for group in groups if set(pair) & set(group)]
        rest = [group for group in groups if group not in one]
        groups = [*rest, sorted({name for group in one for name in group}, key=names.index)]
    return sorted(groups, key=lambda group: names.index(group[0]))

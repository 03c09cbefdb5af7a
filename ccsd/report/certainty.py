"""When a difference between experiments is called clear: for other cases, and for other training seeds."""

import math
from collections.abc import Iterable
from typing import Any, Literal

FEWEST_CASES = 6
"""With fewer pairs no signed-rank test can reach p < 0.05, and a bootstrap interval means little."""
Certainty = Literal["clear", "one seed", "unclear"]
"""Of a difference; with one seed: clear for the cases, and nothing is known of other seeds."""
MARKS: dict[Certainty, str] = {"clear": "*", "one seed": "(*)", "unclear": ""}


def certainty(row: dict[str, Any]) -> Certainty:
    """Return whether a difference is clear: its interval over cases and its range over seeds exclude 0 on one side.

    With fewer than two seeds on a side nothing is known of other seeds, and it is only clear for the cases.
    """
    enough = row["cases"] >= FEWEST_CASES
    above = row["low"] > 0 and row["seeds_low"] > 0
    below = row["high"] < 0 and row["seeds_high"] < 0
    if not (enough and (above or below)):
        return "unclear"
    return "clear" if min(row["seeds"], row["baseline_seeds"]) > 1 else "one seed"


def seed_range(row: dict[str, Any]) -> tuple[float, float] | None:
    """Return the least and the greatest difference between seeds; None where each side has one."""
    if row["seeds"] * row["baseline_seeds"] == 1 or math.isnan(row["seeds_low"]):
        return None
    return float(row["seeds_low"]), float(row["seeds_high"])


def comparable(names: list[str], pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return experiments in groups, in their order: the two of a pair, which share cases, are in one group."""
    groups = [[name] for name in names]
    for pair in pairs:
        one = [group for group in groups if set(pair) & set(group)]
        rest = [group for group in groups if group not in one]
        groups = [*rest, sorted({name for group in one for name in group}, key=names.index)]
    return sorted(groups, key=lambda group: names.index(group[0]))

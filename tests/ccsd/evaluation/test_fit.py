"""The curve from confidence to Dice: its interval covers the promised share of new cases, counted by patient."""

import numpy as np
import pytest

from ccsd.evaluation.fit import GRID, fewest_patients, fit


def cohort(cases: int, seed: int, combinations: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cases whose combinations are wrong by nearly the same."""
    rng = np.random.default_rng(seed)
    case = np.repeat(np.arange(cases), combinations)
    sure = rng.uniform(0.5, 0.95, len(case))
    off = rng.normal(0, 0.5, cases)[case] + rng.normal(0, 0.02, len(case))
    return case, sure, np.clip(sure - 0.1 + off * (1.05 - sure), 0, 1)


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_the_interval_holds_the_share_of_new_cases_that_it_promises(level: float) -> None:
    held = []
    for seed in range(20):
        curve = fit(*cohort(30, seed), level)
        _, sure, dice = cohort(100, 1000 + seed)
        low, high = (np.interp(sure, curve["confidence"], curve[end]) for end in ("low", "high"))
        held.append(np.mean((low <= dice) & (dice <= high)))
    assert level - 0.03 < np.mean(held) < level + 0.06
    assert np.mean(high - low) < 0.6  # which says something


def test_a_case_counts_once_whatever_its_combinations() -> None:
    case, sure, dice = cohort(12, 0)
    once = fit(case, sure, dice, 0.9)
    often = np.where(case == 0, 9, 1)
    again = fit(np.repeat(case, often), np.repeat(sure, often), np.repeat(dice, often), 0.9)
    for part in ("expected", "low", "high"):
        np.testing.assert_allclose(again[part], once[part], atol=1e-5)


def test_more_confidence_never_means_less_dice() -> None:
    case, sure, dice = cohort(12, 0)
    for found in (dice, 1 - dice):
        curve = fit(case, sure, found, 0.9)
        assert np.all(np.diff(curve["expected"]) >= 0)
        assert np.all((np.array(curve["low"]) <= curve["expected"]) & (np.array(curve["expected"]) <= curve["high"]))


def test_an_interval_is_that_of_the_definition_in_whatever_order_the_points_come() -> None:
    """One point a patient, confidence in two values: everything can be counted by hand."""
    sure = np.repeat([0.55, 0.95], 10)
    dice = np.concatenate([0.50 + 0.01 * np.arange(10), 0.80 + 0.01 * np.arange(10)])
    found = []
    for order in (np.arange(20), np.arange(20)[::-1]):
        curve = fit(np.arange(20), sure[order], dice[order], 0.9)
        found.append([np.interp(0.55, curve["confidence"], curve[part]) for part in ("expected", "low", "high")])
    own, other = np.arange(10), 0.1 / 0.5  # by how much the other group is surer, and its misses smaller
    ends = []
    for sign in (1, -1):
        without = 0.50 + 0.01 * (45 - own) / 9
        near = without + sign * np.abs(0.50 + 0.01 * own - without)
        far = 0.545 + sign * np.abs(0.01 * own - 0.01 * (45 - own) / 9) / other
        ends.append(sorted(sign * np.concatenate([near, far]))[18] * sign)  # the 19th of 20 + 1: 0.9 * 21 = 18.9
    np.testing.assert_allclose(found, [[0.545, ends[1], ends[0]]] * 2, atol=1e-5)
    assert curve["seen"] == (0.55, 0.95)


def test_too_few_cases_give_no_interval() -> None:
    assert [fewest_patients(level) for level in (0.1, 0.5, 0.8, 0.9, 0.95, 0.99)] == [2, 2, 4, 9, 19, 99]
    assert fit(*cohort(8, 0), 0.9).keys() == {"patients", "seen", "confidence", "expected"}
    assert "low" in fit(*cohort(9, 0), 0.9)
    alone = fit(*cohort(1, 0, 1), 0.5)
    assert len(set(alone["expected"])) == 1
    assert len(alone["confidence"]) == len(GRID)

"""Fit the Dice to expect at a given confidence, with an interval, to cases that the models were not trained on.

The combinations and scans of one patient are not independent samples, so everything is done by patient: in the fit,
all patients have the same weight, and the interval is that of the jackknife+ (Barber et al. 2021,
doi:10.1214/20-AOS1965), which leaves out whole patients, with weights as in conformal prediction for hierarchical data
(Lee, Barber and Willett, arXiv 2306.06342).
"""

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

Floats = NDArray[np.float64]
Curve = tuple[Floats, Floats]
GRID = np.linspace(0, 1, 41)
"""Confidences at which a curve is stored."""
_ROUNDING = 9


def fewest_patients(level: float) -> int:
    """Return how many patients a calibration requires for an interval of this level: 9 for 0.9."""
    return max(2, ceil(round(1 / (1 - level) - 1, _ROUNDING)))  # one is left out in turn


def fit(patient: NDArray[Any], confidence: Floats, dice: Floats, level: float) -> dict[str, Any]:
    """Return the curve (`ccsd.records.Curve` without region and number of sequences) fitted to points of patients.

    Parameters
    ----------
    patient
        N, the patient of each point.
    confidence, dice
        N, 0 to 1: the models' confidence, and the actual Dice.
    level
        Share of new cases whose Dice should lie in the interval. With fewer patients than `fewest_patients`, there is
        no interval.
    """
    names, number = np.unique(patient, return_inverse=True)
    share = 1 / np.bincount(number)[number]
    expected = np.interp(GRID, *_rising(confidence, dice, share))
    low, high = None, None
    if len(names) >= fewest_patients(level):
        low, high = _jackknife(number, confidence, dice, share, level)
        low, high = np.minimum(low, expected), np.maximum(high, expected)
    shown = {"confidence": GRID, "expected": expected, "low": low, "high": high}
    seen = (confidence.min(), confidence.max())
    return {"patients": len(names), "seen": seen, **{key: _rounded(v) for key, v in shown.items() if v is not None}}


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(np.clip(values, 0, 1).round(6).tolist())


def _jackknife(number: NDArray[Any], x: Floats, y: Floats, share: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the ends of the interval on the grid."""
    below, above, weights = [], [], []
    patients = int(number.max()) + 1
    for left_out in range(patients):
        own = number == left_out
        curve = _rising(x[~own], y[~own], share[~own])
        miss = np.abs(y[own] - np.interp(x[own], *curve)) / scale(x[own])
        centre, width = np.interp(GRID, *curve), miss[:, None] * scale(GRID)
        below.append(centre - width)
        above.append(centre + width)
        weights.append(share[own] / (patients + 1))
    weight = np.concatenate(weights)
    return -_quantile(-np.concatenate(below), weight, level), _quantile(np.concatenate(above), weight, level)


def scale(confidence: Floats) -> Floats:
    """Return the spread of the Dice up to a factor: the lower the confidence, the larger the errors."""
    return 0.05 + 1 - confidence


def _rising(x: Floats, y: Floats, weight: Floats) -> Curve:
    """Return the corners of the non-decreasing least-squares curve; a flat piece is represented by its middle."""
    at, number = np.unique(x, return_inverse=True)  # equal x become one point, whatever their order
    total = np.bincount(number, weight)
    rising = isotonic_regression(np.bincount(number, weight * y) / total, weights=total).x
    corners, starts = np.unique(rising, return_index=True)
    return np.add.reduceat(total * at, starts) / np.add.reduceat(total, starts), corners


def _quantile(values: Floats, weight: Floats, level: float) -> Floats:
    """Return the smallest value of each column (N x G) with at least this share of the weight at or below it."""
    order = np.argsort(values, axis=0)
    reached = np.cumsum(weight[order], axis=0).round(_ROUNDING) >= round(level, _ROUNDING)
    found: Floats = np.take_along_axis(values, np.take_along_axis(order, reached.argmax(axis=0)[None], 0), 0)[0]
    return found

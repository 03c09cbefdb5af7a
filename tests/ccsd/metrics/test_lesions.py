"""The lesion-wise rule on constructed cases whose scores can be worked out by hand."""

import numpy as np
import pytest

from ccsd.metrics.lesions import PENALTY_MM, find_lesions, lesion_scores

UNIT = (1.0, 1.0, 1.0)


def volume(*cubes):
    """Return a mask with cubes given as (start, side)."""
    mask = np.zeros((40, 40, 60), bool)
    for (z, y, x), side in cubes:
        mask[z : z + side, y : y + side, x : x + side] = True
    return mask


BIG = ((5, 5, 5), 6)
FAR = ((5, 5, 40), 6)


def score(reference, predicted, spacing=UNIT):
    return lesion_scores(find_lesions(reference, spacing), predicted, spacing)


def test_equal_lesions_score_one_each():
    scores = score(volume(BIG, FAR), volume(BIG, FAR))

    assert (scores.dice, scores.hd95, scores.lesions, scores.missed, scores.false) == (1, 0, 2, 0, 0)


def test_a_missed_lesion_costs_as_much_as_any_other():
    scores = score(volume(BIG, FAR), volume(BIG))

    assert (scores.dice, scores.hd95) == (0.5, PENALTY_MM / 2)
    assert (scores.lesions, scores.missed, scores.false) == (2, 1, 0)


def test_false_positives_of_any_size_count_as_lesions_with_score_zero():
    scores = score(volume(BIG), volume(BIG, ((30, 30, 30), 1), FAR))

    assert (scores.dice, scores.hd95) == (pytest.approx(1 / 3), pytest.approx(2 * PENALTY_MM / 3))
    assert (scores.lesions, scores.false) == (1, 2)


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (8, 2)])
def test_components_whose_dilations_touch_are_one_lesion(gap, lesions):
    reference = volume(((5, 5, 5), 6), ((5, 5, 11 + gap), 6))

    assert len(find_lesions(reference, UNIT)) == lesions


@pytest.mark.parametrize(("side", "counted"), [(3, 0), (4, 1)])
def test_lesions_of_at_most_50_mm3_are_left_out_even_when_missed(side, counted):
    scores = score(volume(BIG, ((25, 25, 40), side)), volume(BIG))

    assert scores.lesions == 1 + counted
    assert scores.missed == counted
    assert scores.dice == 1 / (1 + counted)


def test_volume_counts_millimetres_not_voxels():
    reference = volume(((5, 5, 5), 3))

    assert score(reference, reference, (2.0, 1.0, 1.0)).lesions == 1  # 27 voxels of 2 mm3
    assert score(reference, reference, UNIT).lesions == 0


def test_a_prediction_that_meets_only_a_small_lesion_is_not_a_false_positive():
    small = ((25, 25, 40), 2)

    assert score(volume(BIG, small), volume(BIG, small)).false == 0


def test_one_prediction_may_belong_to_two_lesions_and_is_compared_whole_with_each():
    predicted = volume(BIG, FAR)
    predicted[7, 7, 5:46] = True  # a bridge of 29 voxels between the two
    scores = score(volume(BIG, FAR), predicted)

    assert scores.false == 0
    assert scores.dice == pytest.approx(2 * 216 / (216 + 2 * 216 + 29))


def test_a_near_prediction_outside_the_lesion_but_inside_its_dilation_belongs_to_it():
    reference, predicted = volume(((5, 5, 5), 4)), volume(((5, 5, 10), 4))
    scores = score(reference, predicted)

    assert (scores.dice, scores.missed, scores.false) == (0, 0, 0)
    assert 0 < scores.hd95 < PENALTY_MM


def test_nothing_to_find_and_nothing_found_is_perfect():
    scores = score(volume(), volume())

    assert (scores.dice, scores.hd95) == (1, 0)


def test_everything_invented_scores_zero():
    scores = score(volume(), volume(BIG))

    assert (scores.dice, scores.hd95, scores.false) == (0, PENALTY_MM, 1)

"""The lesion-wise rules on constructed cases whose scores can be worked out by hand, and on scattered blobs."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ccsd.metrics import Policy, Reference, region_mask
from ccsd.metrics.components import united_by
from ccsd.metrics.lesions import LesionScores, find_lesions, lesion_scores
from ccsd.metrics.surface import hd95
from preprocess.task import Task, default_task, shipped_tasks

Spacing = tuple[float, float, float]
Cube = tuple[tuple[int, int, int], int]
UNIT = (1.0, 1.0, 1.0)
PENALTY_MM = 374
ENHANCING = 3
OFFICIAL = Path(__file__).with_name("official_lesions.tsv")
"""What rachitsaluja/BraTS-2024-Metrics @f1131e3 makes of `blobs`: scores of its `get_LesionWiseResults`."""


def volume(*cubes: Cube) -> np.ndarray:
    """Return a mask with cubes given as (start, side)."""
    mask = np.zeros((40, 40, 60), bool)
    for (z, y, x), side in cubes:
        mask[z : z + side, y : y + side, x : x + side] = True
    return mask


BIG = ((5, 5, 5), 6)
FAR = ((5, 5, 40), 6)


def score(reference: np.ndarray, predicted: np.ndarray, spacing: Spacing = UNIT) -> LesionScores:
    return score_labels(ENHANCING * reference.astype(np.uint8), ENHANCING * predicted.astype(np.uint8), spacing)


def score_labels(
    reference: np.ndarray,
    predicted: np.ndarray,
    spacing: Spacing = UNIT,
    task: Task | None = None,
    region: str = "ET",
) -> LesionScores:
    task = task or default_task()
    lesions = find_lesions(reference, region_mask(reference, region, task), region, task, spacing)
    mask = region_mask(predicted, region, task)
    return lesion_scores(lesions, predicted, mask, region, task, spacing, reference.shape)


def test_equal_lesions_score_one_each() -> None:
    scores = score(volume(BIG, FAR), volume(BIG, FAR))
    assert (scores.dice, scores.hd95, scores.lesions, scores.missed, scores.false) == (1, 0, 2, 0, 0)


def test_a_missed_lesion_costs_as_much_as_any_other() -> None:
    scores = score(volume(BIG, FAR), volume(BIG))
    assert (scores.dice, scores.hd95) == (0.5, PENALTY_MM / 2)
    assert (scores.lesions, scores.missed, scores.false) == (2, 1, 0)


def test_false_positives_of_any_size_count_as_lesions_with_score_zero() -> None:
    scores = score(volume(BIG), volume(BIG, ((30, 30, 30), 1), FAR))
    assert (scores.dice, scores.hd95) == (pytest.approx(1 / 3), pytest.approx(2 * PENALTY_MM / 3))
    assert (scores.lesions, scores.false) == (1, 2)


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (8, 2)])
def test_components_whose_dilations_touch_are_one_lesion(gap: int, lesions: int) -> None:
    reference = volume(((5, 5, 5), 6), ((5, 5, 11 + gap), 6))
    assert score(reference, reference).lesions == lesions


@pytest.mark.parametrize(("side", "counted"), [(3, 0), (4, 1)])
def test_lesions_of_at_most_50_mm3_are_left_out_even_when_missed(side: int, counted: int) -> None:
    scores = score(volume(BIG, ((25, 25, 40), side)), volume(BIG))
    assert scores.lesions == 1 + counted
    assert scores.missed == counted
    assert scores.dice == 1 / (1 + counted)


def test_a_lesion_of_exactly_50_mm3_is_left_out() -> None:
    reference = volume(BIG)
    reference[25:27, 25:30, 40:45] = True
    assert score(reference, volume(BIG)).lesions == 1
    reference[27, 25, 40] = True
    assert score(reference, volume(BIG)).lesions == 2


def test_volume_counts_millimetres_not_voxels() -> None:
    reference = volume(((5, 5, 5), 3))
    assert score(reference, reference, (2.0, 1.0, 1.0)).lesions == 1  # 27 voxels of 2 mm3
    assert score(reference, reference, UNIT).lesions == 0


def test_a_prediction_that_meets_only_a_small_lesion_is_not_a_false_positive() -> None:
    small = ((25, 25, 40), 2)
    assert score(volume(BIG, small), volume(BIG, small)).false == 0


def test_one_prediction_may_belong_to_two_lesions_and_is_compared_whole_with_each() -> None:
    predicted = volume(BIG, FAR)
    predicted[7, 7, 5:46] = True  # a bridge of 29 voxels between the two
    scores = score(volume(BIG, FAR), predicted)
    assert scores.false == 0
    assert scores.dice == pytest.approx(2 * 216 / (216 + 2 * 216 + 29))


def test_a_near_prediction_outside_the_lesion_but_inside_its_dilation_belongs_to_it() -> None:
    reference, predicted = volume(((5, 5, 5), 4)), volume(((5, 5, 10), 4))
    scores = score(reference, predicted)
    assert (scores.dice, scores.missed, scores.false) == (0, 0, 0)
    assert 0 < scores.hd95 < PENALTY_MM


def test_nothing_to_find_and_nothing_found_is_perfect() -> None:
    scores = score(volume(), volume())
    assert (scores.dice, scores.hd95) == (1, 0)


def test_everything_invented_scores_zero() -> None:
    scores = score(volume(), volume(BIG))
    assert (scores.dice, scores.hd95, scores.false) == (0, 374, 1)


def by_the_letter(reference: np.ndarray, predicted: np.ndarray, spacing: Spacing) -> tuple[float, float, int, int]:
    """Follow the challenge's rule step by step on whole volumes: no boxes, no surfaces shared between lesions."""
    touch, grow = ndimage.generate_binary_structure(3, 3), ndimage.generate_binary_structure(3, 2)
    dilated = ndimage.label(ndimage.binary_dilation(reference, grow, iterations=3), touch)[0]
    lesions = [reference & (dilated == i) for i in range(1, dilated.max() + 1)]
    numbers, count = ndimage.label(predicted, touch)
    scored, matched, missed = [], set(), 0
    for lesion in lesions:
        reach = ndimage.binary_dilation(lesion, grow, iterations=3)
        own = set(numbers[reach]) - {0}
        matched |= own
        if lesion.sum() * np.prod(spacing) <= 50:
            continue
        missed += not own
        found = np.isin(numbers, list(own)) if own else np.zeros_like(predicted)
        overlap = 2 * (found & lesion).sum() / (found.sum() + lesion.sum())
        scored.append((overlap, hd95(found, lesion, spacing) if own else PENALTY_MM))
    scored += [(0.0, PENALTY_MM)] * (count - len(matched))
    dice, distance = np.mean(scored, axis=0) if scored else (1.0, 0.0)
    return dice, distance, missed, count - len(matched)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([UNIT, (2.0, 1.0, 0.5)]), st.floats(0.3, 0.6))
def test_scattered_blobs_score_as_the_rule_says_word_for_word(seed: int, spacing: Spacing, level: float) -> None:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(2, 22, 24, 60)), (0, 1.5, 1.5, 1.5))
    noise /= noise.std()
    shared = 0.7 * noise[0] + 0.7 * noise[1]
    reference, predicted = noise[0] > 4 * level, shared > 4 * level
    predicted[..., :25] = False  # what lies there is missed
    found = score(reference, predicted, spacing)
    expected = by_the_letter(reference, predicted, spacing)
    assert (found.dice, found.hd95, found.missed, found.false) == pytest.approx(expected)


def blobs(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two label maps (W x H x D) of scattered blobs that resemble each other."""
    rng = np.random.default_rng(seed)

    def fields() -> np.ndarray:
        noise = ndimage.gaussian_filter(rng.normal(size=(classes + 1, 36, 30, 28)), (0, 1.3, 1.3, 1.3))
        return noise / noise.std()

    first = fields()
    second = 0.75 * first + 0.66 * fields()
    level = rng.uniform(1.0, 2.0)
    return tuple(np.where(f[1:].max(0) > level, f[1:].argmax(0) + 1, 0).astype(np.uint8) for f in (first, second))


with OFFICIAL.open(encoding="utf-8") as lines:
    CASES = {}
    for row in csv.DictReader(lines, delimiter="\t"):
        CASES.setdefault((row["task"], int(row["seed"])), []).append(row)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_scores_are_those_of_the_official_code(name: str, seed: int) -> None:
    task = shipped_tasks()[name]
    reference, predicted = (np.ascontiguousarray(array.T) for array in blobs(7 * seed, len(task.classes)))
    spacing = UNIT if seed % 3 else (0.5, 2.0, 1.0)
    for row in CASES[name, seed]:
        found = score_labels(reference, predicted, spacing, task, row["region"])
        counts = (found.lesions, found.missed, found.false)
        assert counts == tuple(int(row[key]) for key in ("lesions", "missed", "false")), row
        assert found.dice == pytest.approx(float(row["dice"]), abs=1e-8), row


def test_since_2024_small_predictions_are_removed_before_anything_is_scored() -> None:
    task = shipped_tasks()["brats-ped"]
    reference, predicted = volume(BIG).astype(np.uint8), volume(BIG, ((30, 30, 30), 2)).astype(np.uint8)
    assert score_labels(reference, predicted, task=task).false == 0
    predicted[30, 30, 32:35] = 1  # 11 voxels, above the 10 of the rule
    assert score_labels(reference, predicted, task=task).false == 1


def test_where_invented_lesions_do_not_count_they_cost_nothing() -> None:
    task = shipped_tasks()["brats-men-rt"]
    reference, predicted = volume(BIG).astype(np.uint8), volume(BIG, FAR).astype(np.uint8)
    scores = score_labels(reference, predicted, task=task, region="GTV")
    assert (scores.dice, scores.hd95, scores.false) == (1, 0, 1)


def test_the_penalty_may_be_the_diagonal_of_the_whole_volume() -> None:
    task = shipped_tasks()["brats-men-rt"]
    reference = volume(BIG).astype(np.uint8)
    rows = Reference(reference, UNIT, Policy(), task, (30, 40, 120)).score(np.zeros_like(reference))
    assert [row["lesion_hd95"] for row in rows] == [130]


def test_lesions_that_touch_the_same_other_lesion_are_one() -> None:
    own, other = (np.zeros((1, 1, 9), np.int32) for _ in range(2))
    own[0, 0, [0, 3, 8]] = 1, 2, 3
    other[0, 0, 1:3] = 1
    assert united_by(own, other).ravel().tolist() == [4, 0, 0, 4, 0, 0, 0, 0, 3]


def test_a_single_touching_pair_unites_nothing_as_in_the_official_code() -> None:
    own, other = (np.zeros((1, 1, 9), np.int32) for _ in range(2))
    own[0, 0, [0, 8]] = 1, 2
    other[0, 0, 1] = 1
    assert united_by(own, other) is own

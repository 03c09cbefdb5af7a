"""Rows of one case: regions, empty regions, the clean-up."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ccsd.metrics import Policy, Reference, clean_up, cleanup_label, paint, region_mask
from preprocess.task import Cleanup, Task, default_task, shipped_tasks

LABEL_MAPS = hnp.arrays(np.uint8, (4, 5, 6), elements=st.integers(0, 3))
Spacing = tuple[float, float, float]
UNIT = (1.0, 1.0, 1.0)
TASK = default_task()


def score(
    reference: np.ndarray,
    predicted: np.ndarray,
    policy: Policy | None = None,
    spacing: Spacing = UNIT,
    cleanup_below: float = 0,
) -> dict[str, dict[str, Any]]:
    task = with_limit(cleanup_below)
    rows = Reference(reference, spacing, policy or Policy(), task).score(predicted, cleanup=bool(cleanup_below))
    return {row["region"]: row for row in rows}


def with_limit(below_mm3: float) -> Task:
    return TASK.model_copy(update={"cleanup": {"ET": Cleanup(below_mm3=below_mm3, becomes="NCR")}})


def labels(*regions: tuple[int, int]) -> np.ndarray:
    """Return a 10 x 10 x 10 map with the given label in one plane each."""
    array = np.zeros((10, 10, 10), np.uint8)
    for plane, label in regions:
        array[plane] = label
    return array


@settings(max_examples=60)
@given(LABEL_MAPS, LABEL_MAPS)
def test_scores_are_bounded_and_perfect_exactly_for_equal_regions(reference: np.ndarray, predicted: np.ndarray) -> None:
    for region, row in score(reference, predicted).items():
        equal = np.array_equal(region_mask(reference, region, TASK), region_mask(predicted, region, TASK))
        assert 0 <= row["dice"] <= 1
        assert 0 <= row["nsd"] <= 1
        assert row["hd95"] >= 0
        assert (row["dice"] == 1) == equal
        if equal:
            assert (row["hd95"], row["nsd"]) == (0, 1)


def test_overlap_scores_by_hand() -> None:
    row = score(labels((0, 2), (1, 2), (2, 2), (3, 2)), labels((2, 2), (3, 2), (4, 2)), spacing=(2.0, 1.0, 1.5))["WT"]
    assert row["dice"] == pytest.approx(2 * 200 / 700)
    assert row["sensitivity"] == pytest.approx(0.5)
    assert row["precision"] == pytest.approx(2 / 3)
    assert (row["volume_mm3"], row["reference_mm3"]) == (900, 1200)


@pytest.mark.parametrize(
    ("reference", "predicted", "empty", "overlap", "distance"),
    [
        (labels(), labels(), "both", 1, 0),
        (labels((1, 3)), labels(), "prediction", 0, 373.13),
        (labels(), labels((1, 3)), "reference", 0, 373.13),
        (labels((1, 3)), labels((1, 3)), "no", 1, 0),
    ],
)
def test_empty_regions_score_by_the_policy(
    reference: np.ndarray, predicted: np.ndarray, empty: str, overlap: float, distance: float
) -> None:
    row = score(reference, predicted)["ET"]
    assert row["empty"] == empty
    assert (row["dice"], row["nsd"]) == (overlap, overlap)
    assert (row["hd95"], row["hd95_pooled"]) == (distance, distance)


def test_policy_may_leave_out_what_is_rightly_absent_and_set_the_penalty() -> None:
    policy = Policy(hd95_penalty=1.0, score_both_empty=False)
    absent = score(labels(), labels(), policy)["ET"]
    assert all(math.isnan(absent[column]) for column in ("dice", "hd95", "hd95_pooled", "nsd"))
    assert score(labels((1, 3)), labels(), policy)["ET"]["hd95"] == 1.0


def test_a_policy_is_printed_with_every_number_it_sets() -> None:
    left_out = Policy(hd95_penalty=1.0, score_both_empty=False)
    assert Policy().label() == "both-empty:dice=1,hd95=0,nsd=1;one-empty:dice=0,hd95=373.13,nsd=0"
    assert left_out.label() == "both-empty:left-out;one-empty:dice=0,hd95=1,nsd=0"
    assert Policy().sentence() == (
        "Where prediction and reference are both empty, Dice and NSD are 1 and HD95 is 0 mm; "
        "where only one of them is empty, Dice and NSD are 0 and HD95 is 373.13 mm."
    )
    assert left_out.sentence() == (
        "Cases where prediction and reference are both empty are left out of the means; "
        "where only one of them is empty, Dice and NSD are 0 and HD95 is 1 mm."
    )


def test_shares_of_nothing_are_not_numbers() -> None:
    assert math.isnan(score(labels(), labels((1, 3)))["ET"]["sensitivity"])
    assert math.isnan(score(labels((1, 3)), labels())["ET"]["precision"])


def test_lesions_are_counted_with_those_missed_and_those_invented() -> None:
    row = score(labels((0, 2), (8, 2)), labels((8, 2)))["WT"]
    assert (row["lesions"], row["lesions_missed"], row["lesions_false"]) == (2, 1, 0)
    row = score(labels((8, 2)), labels((0, 2), (8, 2)))["WT"]
    assert (row["lesions"], row["lesions_missed"], row["lesions_false"]) == (1, 0, 1)


@pytest.mark.parametrize(("minimum", "cleaned"), [(100, 0.0), (101, 1.0)])
def test_clean_up_adds_columns_and_keeps_the_raw_ones(minimum: int, cleaned: float) -> None:
    rows = score(labels((1, 1)), labels((1, 3)), cleanup_below=minimum)
    assert rows["ET"]["dice"] == 0
    assert rows["ET"]["dice_clean"] == cleaned
    assert rows["TC"]["dice_clean"] == rows["TC"]["dice"] == 1


def test_cleaned_columns_are_the_scores_of_the_cleaned_prediction() -> None:
    reference, predicted = labels((1, 1), (4, 3)), labels((1, 3), (5, 3))
    alone = score(reference, clean_up(predicted, UNIT, TASK))
    for region, row in score(reference, predicted, cleanup_below=500).items():
        for column in ("dice", "hd95", "hd95_pooled", "nsd", "lesion_dice", "lesion_hd95"):
            assert row[f"{column}_clean"] == alone[region][column]


def test_clean_up_keeps_tumour_core_and_leaves_its_input_alone() -> None:
    array = labels((1, 3), (2, 2))
    cleaned = clean_up(array, UNIT, TASK)
    assert not region_mask(cleaned, "ET", TASK).any()
    assert np.array_equal(region_mask(cleaned, "TC", TASK), region_mask(array, "TC", TASK))
    assert region_mask(array, "ET", TASK).sum() == 100


@pytest.mark.parametrize(("voxels", "minimum"), [(0, 5), (5, 5), (5, 0)])
def test_what_needs_no_clean_up_is_returned_as_it_is(voxels: int, minimum: int) -> None:
    array = labels((2, 1))
    array[1, 0, :voxels] = 3
    assert clean_up(array, UNIT, with_limit(minimum)) is array


def test_a_single_voxel_is_cleaned_up() -> None:
    array = labels()
    array[1, 1, 1] = 3
    assert clean_up(array, UNIT, with_limit(2))[1, 1, 1] == 1


@settings(max_examples=60)
@given(hnp.arrays(np.float32, (3, 3, 3, 3), elements=st.floats(0, 1, width=32)))
def test_painted_regions_are_nested_and_keep_the_probable_ones(probabilities: np.ndarray) -> None:
    painted = paint(probabilities, TASK)
    masks = [region_mask(painted, region, TASK) for region in TASK.regions]
    assert not (masks[1] & ~masks[0]).any()
    assert not (masks[2] & ~masks[1]).any()
    assert np.array_equal(masks[2], probabilities[2] > 0.5)
    assert (masks[0] >= (probabilities[0] > 0.5)).all()


def test_paint_gives_each_region_its_class() -> None:
    probabilities = np.array([[0.9, 0.9, 0.9, 0.5], [0.1, 0.9, 0.9, 0.0], [0.0, 0.0, 0.9, 0.0]], np.float32)
    assert paint(probabilities.reshape(3, 1, 1, 4), TASK).ravel().tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize("regions", [2, 4])
def test_paint_rejects_any_other_number_of_regions(regions: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        paint(np.zeros((regions, 2, 2, 2), np.float32), TASK)


def test_clean_up_counts_millimetres() -> None:
    array = labels((1, 3))
    assert clean_up(array, (6.0, 1.0, 1.0), TASK) is array  # 100 voxels of 6 mm3
    assert not region_mask(clean_up(array, UNIT, TASK), "ET", TASK).any()


def test_the_clean_up_is_printed_with_its_limit() -> None:
    assert cleanup_label(TASK) == "ET<500mm3:NCR"
    assert cleanup_label(shipped_tasks()["brats-ped"]) == "none"


def test_regions_that_are_only_scored_have_rows_of_their_own() -> None:
    task = shipped_tasks()["brats-gli-post"]
    rows = Reference(labels((1, 1), (4, 4)), UNIT, Policy(), task).score(labels((1, 1), (3, 2)), cleanup=True)
    dice = {row["region"]: row["dice"] for row in rows}
    assert dice == {"WT": pytest.approx(2 / 3), "TC": 1, "ET": 1, "RC": 0, "NETC": 1, "SNFH": 0}


def test_a_later_region_is_painted_over_an_earlier_one() -> None:
    task = shipped_tasks()["brats-gli-post"]
    assert paint(np.ones((4, 1, 1, 1), np.float32), task).item() == task.classes["RC"]

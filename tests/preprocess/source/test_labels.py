"""Label conventions: translation in both directions, and wrong values rejected by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from preprocess.errors import InputError
from preprocess.source.labels import (
    count_values,
    readings,
    to_convention,
    to_internal,
    whole_numbers,
)
from preprocess.task import LabelConvention
from support.tasks import FOURTH, GLIOMA

CONVENTIONS = GLIOMA.conventions
CLASSES = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 3))


@given(label=CLASSES, name=st.sampled_from(sorted(CONVENTIONS)), dtype=st.sampled_from(["u1", "i2", "f4", "f8"]))
def test_there_and_back(label: np.ndarray, name: str, dtype: str) -> None:
    convention = CONVENTIONS[name]
    stored = to_convention(label, convention)
    back = to_internal(stored.astype(dtype), convention)
    assert np.array_equal(back, label)
    assert stored.dtype == back.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "oedema", "core", "enhancing"), [("brats2020", 2, 1, 4), ("brats2023", 2, 1, 3), ("msd", 1, 2, 3)]
)
def test_values_mean_what_the_data_sets_say(name: str, oedema: int, core: int, enhancing: int) -> None:
    values = np.array([[[0, oedema, core, enhancing]]], np.uint8)
    assert to_internal(values, CONVENTIONS[name]).tolist() == [[[0, 2, 1, 3]]]


def test_wrong_values_are_named_with_counts() -> None:
    with pytest.raises(InputError, match=r"3 \(2 voxels\), 7 \(1 voxels\); allowed in brats2020: .*4 ET"):
        to_internal(np.array([[[0, 3, 3, 7, 4]]]), CONVENTIONS["brats2020"])


@pytest.mark.parametrize(("wrong", "more"), [(10, ""), (12, ", and 2 more")])
def test_at_most_ten_wrong_values_are_listed(wrong: int, more: str) -> None:
    with pytest.raises(InputError, match=rf"19 \(1 voxels\){more}; allowed"):
        to_internal(np.arange(10, 10 + wrong)[None, None], CONVENTIONS["brats2023"])


def test_the_message_says_what_each_value_means() -> None:
    assert str(CONVENTIONS["brats2020"]) == "0 background, 1 NCR, 2 ED, 4 ET"
    assert str(CONVENTIONS["brats2024"]) == "0 background, 1 NCR, 2 ED, 3 ET, 4 RC"


def test_fractions_are_wrong_values() -> None:
    with pytest.raises(InputError, match=r"1\.5 \(1 voxels\)"):
        to_internal(np.array([[[0, 1.5]]]), CONVENTIONS["brats2023"])


def test_the_cavity_is_background_unless_it_is_a_class() -> None:
    assert CONVENTIONS["brats2024"].foreign == {4: "RC"}
    assert to_internal(np.array([[[0, 1, 4]]]), FOURTH.conventions["brats2024"]).tolist() == [[[0, 1, 4]]]
    assert to_internal(np.array([[[0, 1, 4]]]), CONVENTIONS["brats2024"]).tolist() == [[[0, 1, 0]]]


def test_what_each_convention_makes_of_values_is_told() -> None:
    assert readings({0: 10, 2: 3000, 4: 1000}, 0.001, GLIOMA) == (
        "brats2020 (WT 4.0 ml, TC 1.0 ml, ET 1.0 ml), brats2024 (WT 3.0 ml, TC 0.0 ml, ET 0.0 ml)"
    )


def test_values_near_whole_numbers_are_rounded_only_all_together() -> None:
    assert whole_numbers(np.array([0.9995, 3.0004, -0.0])).tolist() == [1, 3, 0]
    assert whole_numbers(np.array([0.9995, 0.5])).tolist() == [0.9995, 0.5]


@given(hnp.arrays(np.int16, (4, 5, 6), elements=st.integers(-3, 300)))
def test_count_values_agrees_with_numpy(array: np.ndarray) -> None:
    values, counts = np.unique(array, return_counts=True)
    assert count_values(array) == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_values_below_zero_are_counted() -> None:
    assert count_values(np.array([[[-2, 0, 0, 3]]], np.int16)) == {-2: 1, 0: 2, 3: 1}


def test_whole_numbers_are_counted_as_int_whatever_their_type() -> None:
    assert str(count_values(np.array([[[0.0, 2.0, 2.0, 2.5]]]))) == "{0: 1, 2: 2, 2.5: 1}"


def test_other_tasks_have_other_readings() -> None:
    assert readings({4: 1000}, 0.001, FOURTH) == "brats2024 (WT 0.0 ml, TC 0.0 ml, ET 0.0 ml, RC 1.0 ml)"


def test_a_class_without_a_number_is_rejected_and_never_written_as_background() -> None:
    convention = LabelConvention("mine", {1: 1, 7: 3}, {1: "NCR", 7: "ET"})
    assert to_convention(np.array([0, 1, 3], np.uint8), convention).tolist() == [0, 1, 7]
    with pytest.raises(InputError, match="the convention mine has no number for class 2; use one that does"):
        to_convention(np.array([0, 1, 2, 3], np.uint8), convention)
    assert GLIOMA.output_convention(convention).name == "brats2023"
    assert GLIOMA.output_convention(CONVENTIONS["msd"]).name == "msd"

"""The vocabulary: 15 combinations, unique, in the order of the field; names resolved or refused."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.errors import InputError
from preprocess.modalities import ALIASES, LABELS, MODALITIES, REGIONS, SUBSET_ORDER, all_subsets, modality, subset_name

FIELD = """t2 t1ce t1 flair
t1ce+t2 t1+t1ce flair+t1 t1+t2 flair+t2 flair+t1ce
flair+t1+t1ce flair+t1+t2 flair+t1ce+t2 t1+t1ce+t2
flair+t1+t1ce+t2"""
"""As the tables of RFNet and its descendants print them, in our names."""


def test_fifteen_combinations_unique_and_in_order() -> None:
    assert tuple(FIELD.split()) == SUBSET_ORDER
    assert len({frozenset(names) for names in all_subsets()}) == 2 ** len(MODALITIES) - 1
    assert [subset_name(names) for names in all_subsets()] == list(SUBSET_ORDER)


@given(st.lists(st.sampled_from(sorted(ALIASES)), min_size=1), st.sampled_from(["+", ",", " + "]))
def test_a_name_has_one_canonical_form(aliases: list[str], joint: str) -> None:
    name = subset_name(joint.join(alias.upper() for alias in aliases))
    assert name in SUBSET_ORDER
    assert set(name.split("+")) == {modality(alias) for alias in aliases}
    assert {subset_name("+".join(order)) for order in permutations(name.split("+"))} == {name}


@pytest.mark.parametrize(
    "names",
    [
        ["flair", "t1", "t1ce", "t2"],  # BraTS until 2021
        ["t2f", "t1n", "t1c", "t2w"],  # BraTS since 2023
        ["FLAIR", "T1w", "t1gd", "T2w"],  # MSD
        ["T2-FLAIR", "T1", "T1contrast", "T2"],
        ["T2FLAIR", " t1 ", "T1CE", "t2"],
    ],
)
def test_names_of_the_data_sets_mean_what_they_say(names: list[str]) -> None:
    assert [modality(name) for name in names] == ["flair", "t1", "t1ce", "t2"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("", r"no modality in ''; give at least one of flair, t1, t1ce, t2, joined by '\+'"),
        ("+", r"no modality in '\+'; give at least one of flair, t1, t1ce, t2, joined by '\+'"),
        ("t3", "unknown modality 't3'; allowed: flair, t2f, .*, t2, t2w$"),
        ("flair+dwi", "unknown modality 'dwi'; allowed: flair, t2f, .*, t2, t2w$"),
    ],
)
def test_what_is_no_combination_is_refused_with_the_names_that_are(wrong: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        subset_name(wrong)


def test_regions_are_nested_unions_of_the_classes() -> None:
    assert {name: set(classes) for name, classes in REGIONS.items()} == {
        "WT": set(LABELS.values()), "TC": {LABELS["NCR"], LABELS["ET"]}, "ET": {LABELS["ET"]},
    }  # fmt: skip

"""Pictures: the right slice, the right way round, each class in its colour."""

import numpy as np

from preprocess.pictures import COLOURS, colour, draw, png, side_by_side, slice_of_interest
from support.tasks import ED, ET, FOURTH, GLIOMA, NCR

IMAGE = np.array([[0, 10, 20], [30, 40, 50]], np.int16)


def test_the_slice_with_the_most_tumour_counts_the_inner_regions_more() -> None:
    label = np.zeros((5, 4, 4), np.uint8)
    label[1, 0, :3] = ED
    label[3, 0, :2] = ET
    assert slice_of_interest(label, GLIOMA) == 3
    assert slice_of_interest(label * 0, GLIOMA) == 2


def test_each_class_has_its_colour_and_the_front_right_corner_is_at_the_top_left() -> None:
    label = np.array([[0, 0, NCR], [0, ED, ET]], np.uint8)
    picture, plain = draw(IMAGE, label, height=2), draw(IMAGE, height=2)
    assert (plain[0, 0] == 255).all()
    assert (plain[1, 2] == 0).all()
    for place, name in {(0, 0): "yellow", (0, 1): "blue", (1, 0): "orange"}.items():
        assert np.abs(picture[place] - (plain[place] / 2 + np.array(COLOURS[name]) / 2)).max() < 1
    assert np.array_equal(picture[0, 2], plain[0, 2])


def test_a_class_has_the_colour_of_its_number_and_a_region_of_its_own_counts() -> None:
    assert [colour(number)[0] for number in (1, 2, 3, 4, 8)] == ["orange", "blue", "yellow", "green", "orange"]
    picture = draw(IMAGE, np.full((2, 3), FOURTH.classes["RC"], np.uint8), height=2)
    assert np.abs(picture[1, 2] - np.array(COLOURS["green"]) / 2).max() < 1
    label = np.zeros((5, 4, 4), np.uint8)
    label[1, 0, 0] = FOURTH.classes["RC"]
    assert slice_of_interest(label, FOURTH) == 1


def test_an_outline_surrounds_the_tumour() -> None:
    tumour = np.zeros((5, 5), np.uint8)
    tumour[2, 2] = ET
    white = (draw(np.zeros((5, 5)), outlined=tumour, height=5) == 255).all(axis=2)
    assert np.argwhere(white).tolist() == [[1, 2], [2, 1], [2, 3], [3, 2]]


def test_small_images_are_enlarged_and_shown_in_a_row() -> None:
    row = side_by_side([draw(IMAGE, height=5)] * 2, gap=1)
    assert row.shape == (6, 19, 3)
    assert (row[:, 9] == 255).all()
    assert png(row).startswith(b"\x89PNG")


def test_what_is_not_finite_is_black() -> None:
    assert draw(np.array([[np.nan, np.inf], [1.0, 2.0]]), height=2)[1].max() == 0

"""What a step draws."""

import itertools

import pytest
import torch

from ccsd.config import Distillation
from ccsd.distillation.schedule import Draw, draw_step, ramp
from ccsd.distillation.subsets import bits, draw_levels, every_partial, from_bits, is_partial
from support.distilling import every_set
from support.tasks import GLIOMA

FULL = torch.ones(3, 4, dtype=torch.bool)


def test_bits_round_trip() -> None:
    table = torch.tensor([from_bits(n, 4) for n in range(16)])
    assert bits(table).tolist() == list(range(16))


@pytest.mark.parametrize("nested", [False, True])
def test_one_subset_of_each_size(nested: bool) -> None:
    drawn = draw_levels(FULL, 0, 7, [0, 1, 2], nested=nested)
    assert drawn.sum(-1).tolist() == [[3] * 3, [2] * 3, [1] * 3]
    if nested:
        assert (drawn[1:] <= drawn[:-1]).all()


def test_every_subset_is_drawn_about_equally_often() -> None:
    counts = torch.zeros(3, 16)
    for step in range(600):
        numbers = bits(draw_levels(FULL[:1], 0, step, [0]))[:, 0]
        counts[range(3), numbers] += 1
    for row, size in zip(counts, (3, 2, 1), strict=True):
        possible = [n for n in range(16) if n.bit_count() == size]
        assert (row[possible] > 600 / len(possible) * 0.7).all()


def test_a_draw_depends_on_seed_step_and_sample_alone() -> None:
    together = draw_levels(FULL, 3, 11, [4, 5, 6])
    alone = torch.cat([draw_levels(FULL[:1], 3, 11, [i]) for i in (4, 5, 6)], dim=1)
    assert torch.equal(together, alone)
    assert not torch.equal(together, draw_levels(FULL, 3, 12, [4, 5, 6]))


def test_subsets_are_independent_unless_they_are_to_be_nested() -> None:
    draws = [draw_levels(FULL, 0, step, [0, 1, 2]) for step in range(20)]
    assert not any((drawn[1:] <= drawn[:-1]).all() for drawn in draws)
    for pairs, nested in (("levels", False), ("adjacent", True)):
        step = draw_step(every_set(hmsd_pairs=pairs), GLIOMA, FULL, seed=0, step=0, total_steps=9, samples=[0, 1, 2])
        assert torch.equal(step.visited, draw_levels(FULL, 0, 0, [0, 1, 2], nested=nested))


def test_every_sample_needs_its_number() -> None:
    with pytest.raises(ValueError, match="zip"):
        draw_levels(FULL, 0, 0, [0, 1])


def test_a_case_that_lacks_modalities_draws_from_what_it_has() -> None:
    available = torch.tensor([[True, False, True, False], [False, True, False, False]])
    drawn = draw_levels(available, 0, 0, [0, 1])
    assert (drawn <= available).all()
    assert is_partial(drawn, available).tolist() == [[False, False], [False, False], [True, False]]


def test_every_partial_subset_once_largest_first() -> None:
    table = every_partial(FULL[:1])[:, 0]
    assert len(set(bits(table).tolist())) == 14
    sizes = table.sum(-1).tolist()
    assert sizes == sorted(sizes, reverse=True)
    assert is_partial(every_partial(FULL[:1]), FULL[:1]).all()


def test_partial_subsets_that_a_case_cannot_have_are_its_full_set() -> None:
    available = torch.tensor([[True, False, True, False], [True, True, True, True]])
    table = every_partial(available)
    partial = is_partial(table, available)
    assert (table <= available).all()
    assert bits(table[partial[:, 0], 0]).tolist() == [0b0001, 0b0100]
    assert partial[:, 1].all()


@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (5, 0.5), (10, 1.0), (50, 1.0)])
def test_ramp_is_linear(step: int, expected: float) -> None:
    assert ramp(step, 100, 0.1) == pytest.approx(expected)


def test_no_ramp_is_full_weight() -> None:
    assert ramp(0, 100, 0) == 1


@pytest.mark.parametrize(
    ("method", "pairs", "count"),
    [("full", "levels", 0), ("dropout", "levels", 3), ("ccsd", "all", 14), ("hmsd", "adjacent", 3)],
)
def test_methods_visit_what_they_say(method: str, pairs: str, count: int) -> None:
    settings = every_set(method=method, hmsd_pairs=pairs)
    draw = draw_step(settings, GLIOMA, FULL, seed=0, step=0, total_steps=10, samples=[0, 1, 2])
    assert draw.visited.shape == (count, 3, 4)


def _draw(settings: Distillation, step: int) -> Draw:
    return draw_step(settings, GLIOMA, FULL, seed=0, step=step, total_steps=9, samples=[0, 1, 2])


def test_random_priority_covers_all_orders() -> None:
    settings = Distillation(criterion="random")
    seen = {tuple(_draw(settings, s).priority[:, 0].tolist()) for s in range(300)}
    assert seen == set(itertools.permutations([0.0, 1, 2, 3]))


def test_random_priority_depends_on_seed_step_and_sample_alone() -> None:
    def priority(step: int, samples: list[int]) -> torch.Tensor:
        available = FULL[: len(samples)]
        settings = Distillation(criterion="random")
        return draw_step(settings, GLIOMA, available, seed=0, step=step, total_steps=9, samples=samples).priority

    assert torch.equal(priority(3, [4, 5, 6]), torch.cat([priority(3, [i]) for i in (4, 5, 6)], dim=1))
    assert not torch.equal(priority(3, [4, 5, 6]), priority(4, [4, 5, 6]))


def test_scoring_every_n_steps() -> None:
    settings = every_set(every_n=3)
    scored = [_draw(settings, s).score for s in range(6)]
    assert scored == [True, False, False, True, False, False]


ONE = Distillation(per_step="one", every_n=2)


def test_one_per_step_draws_every_size_and_every_step_of_the_path_alike() -> None:
    """In turns: even steps visit a subset, odd ones walk the path."""
    even, odd = ([_draw(ONE, step) for step in range(first, 600, 2)] for first in (0, 1))
    assert {(draw.visited.shape, draw.walks, draw.share) for draw in even} == {((1, 3, 4), False, 0.5)}
    assert {(draw.visited.shape, draw.walks, draw.share) for draw in odd} == {((0, 3, 4), True, 0.5)}
    assert [draw.score for draw in odd[:4]] == [True, False, True, False]
    sizes = torch.cat([draw.visited.sum(-1).flatten() for draw in even])
    rows = torch.cat([draw.walked for draw in odd])
    for drawn in (sizes - 1, rows):
        assert torch.bincount(drawn, minlength=3).tolist() == pytest.approx([300] * 3, abs=60)


def test_one_per_step_fits_what_a_case_has() -> None:
    """And every process knows when all the steps walked begin at the full set, whatever its own cases lack."""
    available = torch.tensor([[True] * 4, [True, False, True, False], [False, True, False, False]])
    starts = set()
    for step in range(1, 100, 2):
        even, draw = (
            draw_step(ONE, GLIOMA, available, seed=0, step=s, total_steps=9, samples=[0, 1, 2])
            for s in (step - 1, step)
        )
        assert is_partial(even.visited, available).tolist() == [[True, True, False]]
        assert (draw.walked < torch.tensor([3, 1, 1])).all()
        assert draw.from_full == bool(draw.walked[0] == 0)
        starts.add(draw.from_full)
    assert starts == {True, False}


@pytest.mark.parametrize("method", ["dropout", "hmsd"])
def test_methods_without_a_path_visit_a_subset_in_every_step(method: str) -> None:
    settings = Distillation(per_step="one", method=method, hmsd_pairs="all")
    draws = [_draw(settings, step) for step in range(100)]
    assert {(draw.walks, draw.share) for draw in draws} == {(False, 1.0)}
    assert {int(number) for draw in draws for number in bits(draw.visited)[0]} == set(range(1, 15))

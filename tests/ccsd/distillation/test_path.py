"""DMCD's greedy path on criticalities that are known."""

import torch
from torch import Tensor

from ccsd.distillation.path import RunningCriticality, greedy_path, order_of_removal, remove_each, tally

WORTH = torch.tensor([3.0, 1.0, 9.0, 2.0])
"""What each of flair, t1, t1ce, t2 contributes: t1ce is the most critical, then flair, t2, t1."""


def loss_of(sets: Tensor) -> Tensor:
    return -(sets * WORTH).sum(-1)


def rise(candidates: Tensor, current: Tensor) -> Tensor:
    return loss_of(candidates) - loss_of(current)


def test_the_path_removes_the_most_critical_first() -> None:
    available = torch.ones(1, 4, dtype=torch.bool)
    path = greedy_path(available, rise)
    assert order_of_removal(available, path)[:, 0].tolist() == [2, 0, 3]
    assert path[-1, 0].tolist() == [False, True, False, False]


def test_paths_are_per_sample() -> None:
    available = torch.ones(2, 4, dtype=torch.bool)
    sign = torch.tensor([1.0, -1.0])
    path = greedy_path(available, lambda candidates, current: sign * rise(candidates, current))
    assert order_of_removal(available, path).T.tolist() == [[2, 0, 3], [1, 3, 0]]


def test_a_case_with_few_modalities_stops_at_its_last() -> None:
    available = torch.tensor([[True, False, True, False], [False, False, False, True]])
    path = greedy_path(available, rise)
    assert order_of_removal(available, path).T.tolist() == [[2, -1, -1], [-1, -1, -1]]
    assert path.any(-1).all()


def test_ties_follow_the_fixed_order() -> None:
    available = torch.ones(1, 4, dtype=torch.bool)
    path = greedy_path(available, lambda candidates, _: torch.zeros(candidates.shape[:2]))
    assert order_of_removal(available, path)[:, 0].tolist() == [0, 1, 2]


def test_removing_each_keeps_the_last_one() -> None:
    assert remove_each(torch.tensor([[False, True, False, False]])).all(0).tolist() == [[False, True, False, False]]


def test_running_means_remember_what_was_scored() -> None:
    memory = RunningCriticality(4)
    current = torch.ones(2, 4, dtype=torch.bool)
    scores = rise(remove_each(current), current)
    memory.update(*tally(current, scores))
    torch.testing.assert_close(memory.lookup(current)[:, 0], WORTH)
    memory.update(*tally(current, 2 * scores))
    torch.testing.assert_close(memory.lookup(current)[:, 0], 0.9 * WORTH + 0.1 * 2 * WORTH)
    assert memory.lookup(torch.tensor([[True, True, False, False]])).abs().sum() == 0


def test_a_set_keeps_its_mean_while_others_are_scored() -> None:
    memory = RunningCriticality(4)
    full, pair = torch.tensor([[[True, True, True, True]], [[True, True, False, False]]])
    for current, score in ((full, 1.0), (pair, 2.0), (full, 3.0)):
        memory.update(*tally(current, torch.full((4, 1), score)))
    torch.testing.assert_close(memory.lookup(full)[:, 0], torch.full((4,), 0.9 * 1 + 0.1 * 3))
    assert memory.lookup(pair)[:, 0].tolist() == [2, 2, 0, 0]


def test_a_tally_leaves_out_removals_that_are_not_possible() -> None:
    current = torch.tensor([[True, False, True, False], [False, True, False, False]])
    totals, counts = tally(current, torch.ones(4, 2))
    assert torch.equal(totals, counts)
    assert counts.sum() == 2
    assert counts[0b0101].tolist() == [1, 0, 1, 0]

"""The objective for any number of sequences and regions: what holds for four holds for one to five, and for many."""

import pytest
import torch

from ccsd.config import Distillation, Model
from ccsd.config.method import MOST_SETS_KEPT
from ccsd.data.batch import Slots
from ccsd.distillation.losses import region_targets
from ccsd.distillation.objective import Objective
from ccsd.distillation.path import greedy_path, order_of_removal, remove_each
from ccsd.distillation.schedule import draw_step
from ccsd.distillation.subsets import bits, draw_levels, every_partial, is_partial
from ccsd.model import SharedSpecificNet
from preprocess.task import Task
from support.distilling import every_set
from support.tasks import small_task

COUNTS = [1, 2, 3, 5]
METHODS = ["full", "dropout", "hmsd", "dmcd", "ccsd"]


def step(task: Task, settings: Distillation, number: int = 4) -> tuple[Objective, dict[str, torch.Tensor]]:
    """Return an objective and what its forward gives for a batch of two."""
    torch.manual_seed(0)
    objective = Objective(SharedSpecificNet(Model(width=4, levels=2), task), settings, task)
    available = torch.ones(2, len(task.modalities), dtype=torch.bool)
    draw = draw_step(settings, task, available, seed=0, step=number, total_steps=10, samples=[0, 1])
    image = torch.randn(2, len(task.modalities), 8, 8, 8)
    label = torch.randint(0, len(task.classes) + 1, (2, 8, 8, 8))
    return objective, objective(image, label, available, draw)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_with_any_number_of_sequences(method: str, count: int) -> None:
    objective, out = step(small_task(count, regions=2), every_set(method=method))
    out["loss"].backward()
    assert out["loss"].isfinite()
    assert [name for name, p in objective.named_parameters() if p.grad is None] == []
    assert (out["hmsd"] > 0) == (method in {"hmsd", "ccsd"} and count > 1)
    assert (out["dmcd"] > 0) == (method in {"dmcd", "ccsd"} and count > 1)
    assert len(out["removed"]) == ((count - 1) if method in {"dmcd", "ccsd"} else 0)


@pytest.mark.parametrize("pairs", ["levels", "adjacent", "all"])
@pytest.mark.parametrize("criterion", ["loss", "kl", "static", "random", "least"])
def test_one_sequence_has_nothing_to_distil(pairs: str, criterion: str) -> None:
    task = small_task(1)
    settings = every_set(hmsd_pairs=pairs, criterion=criterion, static_order=task.modalities)
    for number in (0, 1):
        _, out = step(task, settings, number)
        assert {name: out[name].item() for name in ("hmsd", "dmcd", "shared", "specific")} == {
            "hmsd": 0, "dmcd": 0, "shared": 0, "specific": 0,
        }  # fmt: skip


@pytest.mark.parametrize("count", COUNTS)
def test_one_subset_of_each_size_and_every_partial_one(count: int) -> None:
    full = torch.ones(3, count, dtype=torch.bool)
    for nested in (False, True):
        drawn = draw_levels(full, 0, 7, [0, 1, 2], nested=nested)
        assert drawn.dtype == torch.bool
        assert drawn.sum(-1).tolist() == [[size] * 3 for size in range(count - 1, 0, -1)]
    table = every_partial(full)
    assert table.shape == (2**count - 2, 3, count)
    assert len(set(bits(table[:, 0]).tolist())) == 2**count - 2
    assert is_partial(table, full).all()


@pytest.mark.parametrize("count", COUNTS)
def test_the_path_leaves_the_least_critical_sequence(count: int) -> None:
    worth = torch.arange(1.0, count + 1)
    full = torch.ones(2, count, dtype=torch.bool)
    path = greedy_path(full, lambda candidates, current: (current * worth).sum(-1) - (candidates * worth).sum(-1))
    assert path.shape == (count - 1, 2, count)
    assert order_of_removal(full, path)[:, 0].tolist() == list(range(count - 1, 0, -1))
    assert remove_each(full).shape == (count, 2, count)


def test_many_sequences_keep_no_means_of_all_their_sets() -> None:
    task = small_task(MOST_SETS_KEPT + 1)
    objective, out = step(task, every_set(hmsd_pairs="adjacent"), number=5)
    assert objective.criticality is None
    assert out["loss"].isfinite()
    assert len(out["removed"]) == MOST_SETS_KEPT


@pytest.mark.parametrize("regions", [1, 2, 4])
def test_regions_are_unions_of_classes(regions: int) -> None:
    task = small_task(2, regions)
    label = torch.arange(regions + 1).view(1, 1, 1, -1)
    expected = [[float(number in task.numbers(region)) for number in range(regions + 1)] for region in task.regions]
    assert region_targets(label, task).view(regions, -1).tolist() == expected


@pytest.mark.parametrize("count", COUNTS)
def test_memory_for_batches_has_a_channel_per_sequence(count: int) -> None:
    slots = Slots(2, 3, count, (4, 5, 6), shared=False)
    assert slots.image.shape == (2, 3, count, 4, 5, 6)
    one = slots.image[0].nbytes + slots.label[0].nbytes
    assert Slots.bytes_each(3, count, (4, 5, 6)) == one

"""Losses: known values, finite at the extremes, no gradient to a teacher."""

import pytest
import torch

from ccsd.distillation.losses import (
    alignment_loss,
    distillation_loss,
    modality_loss,
    region_targets,
    segmentation_loss,
)
from support.tasks import GLIOMA

SHAPE = (2, 3, 4, 4, 4)


def test_divergence_of_equal_logits_is_zero() -> None:
    z = 5 * torch.randn(SHAPE)
    assert distillation_loss(z, z, 4.0).abs().max() < 1e-5


def test_divergence_matches_the_formula() -> None:
    t, s = torch.randn(2, *SHAPE, dtype=torch.float64)
    p, q = (t / 4).sigmoid(), (s / 4).sigmoid()
    expected = 16 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean((1, 2, 3, 4))
    torch.testing.assert_close(distillation_loss(t, s, 4.0).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("t", "s"), [(100.0, -100.0), (-100.0, 100.0), (100.0, 100.0)])
def test_divergence_is_finite_at_the_extremes_in_bf16(t: float, s: float) -> None:
    student = torch.full(SHAPE, s, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = distillation_loss(torch.full(SHAPE, t, dtype=torch.bfloat16), student, 1.0).mean()
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    assert loss >= 0


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = torch.randn(SHAPE, requires_grad=True)
    student = torch.randn(SHAPE, requires_grad=True)
    distillation_loss(teacher, student, 4.0).sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_segmentation_loss_of_certain_truth_and_falsehood() -> None:
    target = (torch.rand(SHAPE) > 0.5).float()
    right = segmentation_loss((target * 2 - 1) * 50, target)
    wrong = segmentation_loss((1 - target * 2) * 50, target)
    assert (right < 0.05).all()
    assert (wrong > 40).all()


def test_segmentation_loss_of_half_overlap() -> None:
    target = torch.zeros(1, 1, 1, 1, 4)
    target[..., :2] = 1
    logits = torch.tensor([60.0, -60, 60, -60]).view(1, 1, 1, 1, 4)
    dice = 1 - 2 * 1 / (2 + 2 + 1)
    assert segmentation_loss(logits, target).item() == pytest.approx(dice + 30)


def test_losses_are_one_value_per_sample() -> None:
    """No sample sees another: K x B together is what each is alone."""
    z, other = 3 * torch.randn(2, 5, *SHAPE[1:]), torch.randn(2, 5, *SHAPE[1:])
    target = (torch.rand(5, *SHAPE[1:]) > 0.5).float()
    together, divergence = segmentation_loss(z, target), distillation_loss(z, other, 2.0)
    for k, b in ((0, 0), (1, 3)):
        torch.testing.assert_close(together[k, b], segmentation_loss(z[k, b], target[b]))
        torch.testing.assert_close(divergence[k, b], distillation_loss(z[k, b], other[k, b], 2.0))


def test_regions_are_nested() -> None:
    label = torch.tensor([0, 1, 2, 3]).view(1, 1, 1, 4)
    assert region_targets(label, GLIOMA).flatten(1)[0].view(3, 4).tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


def test_alignment_counts_available_neighbours_only() -> None:
    rows = [[0.0, 1, 3, 7], [10, 12, 13, 19], [20, 20, 26, 20], [2, 0, 0, 9], [5, 6, 8, 0]]
    shared = torch.tensor(rows).view(5, 4, 1, 1, 1, 1)
    available = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]]).bool()
    assert alignment_loss(shared, available).tolist() == [(1 + 2 + 4 + 7) / 4, (2 + 9) / 2, 0.0, 7.0, 2.0]


def test_modality_loss_ignores_what_is_absent() -> None:
    logits = 100 * torch.eye(4).repeat(1, 1, 1)
    logits[0, 3] = torch.tensor([100.0, 0, 0, 0])
    assert modality_loss(logits, torch.tensor([[True, True, True, False]])).item() == pytest.approx(0)
    assert modality_loss(logits, torch.ones(1, 4, dtype=torch.bool)).item() == pytest.approx(25)

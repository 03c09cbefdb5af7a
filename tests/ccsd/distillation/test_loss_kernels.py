"""The kernels of the losses, by Triton's interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor

from ccsd.distillation import losses
from support.kernels import DEVICE, by_kernels, distance

SPACE = (3, 7, 9, 11)


def both(logits: Tensor, teacher: Tensor, target: Tensor, weights: Tensor) -> list[Tensor]:
    """Return both losses and their gradients."""
    first, second = (logits.detach().requires_grad_() for _ in range(2))
    supervised, distilled = losses.segmentation_loss(first, target), losses.distillation_loss(teacher, second, 4.0)
    ((supervised * weights).sum() + (distilled * weights).sum()).backward()
    return [supervised.detach(), distilled.detach(), first.grad, second.grad]


@pytest.mark.parametrize("lead", [(3, 2), (2,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_are_those_of_torch(
    lead: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_kernels("ccsd.distillation.loss_kernels")
    torch.manual_seed(0)
    logits, teacher = (torch.randn(2, *lead, *SPACE) * 3).to(dtype)
    logits[..., 0] = 60  # where an exponential overflows unless it is that of a negative number
    if len(lead) == 2:  # the order in which sets are decoded, and one teacher of several sets
        logits, teacher = logits.transpose(0, 1).contiguous().transpose(0, 1), teacher[:1].expand_as(logits)
    target, weights = (torch.rand(2, *SPACE) > 0.7).float(), torch.randn(lead)
    logits, teacher, target, weights = (t.to(DEVICE) for t in (logits, teacher, target, weights))
    monkeypatch.setattr(losses, "by_triton", lambda _: False)
    wanted = both(logits, teacher, target, weights)
    monkeypatch.setattr(losses, "by_triton", lambda _: True)
    for found, right in zip(both(logits, teacher, target, weights), wanted, strict=True):
        assert found.shape == right.shape
        assert distance(found, right) < (1e-5 if dtype == torch.float32 else 1e-2)

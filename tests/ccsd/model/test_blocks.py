"""What the network does on a GPU, seen without one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ccsd.config import Model
from ccsd.model import SharedSpecificNet, blocks
from ccsd.model.blocks import Norm, mean_pool
from ccsd.model.group_norm import group_norm
from support.tasks import GLIOMA


def test_the_pooling_of_gpus_is_that_of_cpus(monkeypatch) -> None:
    class OfGpu(torch.Tensor):
        device = torch.device("meta")

    x = torch.randn(2, 3, 4, 6, 8, requires_grad=True)
    found, wanted = mean_pool(x.as_subclass(OfGpu), 2), functional.avg_pool3d(x, 2)
    torch.testing.assert_close(found.as_subclass(torch.Tensor), wanted)
    weights = torch.randn_like(wanted)
    first, second = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (found.as_subclass(torch.Tensor), wanted))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("shape", [(2, 16, 4, 5, 6), (1, 8, 3, 3, 3), (2, 24, 2, 2, 2)])
def test_the_split_norm_is_that_of_torch(shape: tuple[int, ...]) -> None:
    groups = shape[1] // 8
    x, weight, bias = torch.randn(shape) + 2, torch.randn(shape[1]), torch.randn(shape[1])
    x[:, 0] *= 30
    ours, torchs = ([t.clone().requires_grad_() for t in (x, weight, bias)] for _ in range(2))
    found = group_norm(ours[0], groups, *ours[1:], 1e-5)
    wanted = functional.group_norm(torchs[0], groups, *torchs[1:], 1e-5)
    torch.testing.assert_close(found, wanted)
    slope = torch.randn_like(wanted)
    for ours_grad, torchs_grad in zip(
        torch.autograd.grad(found, ours, slope), torch.autograd.grad(wanted, torchs, slope), strict=True
    ):
        torch.testing.assert_close(ours_grad, torchs_grad, rtol=1e-4, atol=1e-4)


def test_the_norm_of_gpus_keeps_the_type_and_is_that_of_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = Norm(16)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 16, 4, 4, 4).bfloat16()
    wanted = norm(x.float())
    monkeypatch.setattr(blocks, "on_gpu", lambda _: True)
    found = norm(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.05, rtol=0.02)


@pytest.mark.parametrize(
    ("settings", "side"),
    [({"width": 8, "levels": 3}, 8), pytest.param({"backbone": "shaspec"}, 32, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("encoded", [None, (1, 3)])
def test_specific_encoders_one_by_one_are_the_grouped_ones(
    settings: dict[str, object], side: int, encoded: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = SharedSpecificNet(Model.model_validate(settings), GLIOMA)
    image = torch.randn(2, 4, 16, side, side)

    def specific() -> tuple[Tensor, list[Tensor]]:
        net.zero_grad()
        found = net.encode_specific(image[:, encoded] if encoded else image, encoded or net.all)
        if encoded is None:
            found.square().sum().backward()
        return found.detach(), [p.grad for p in net.specific.parameters() if p.grad is not None]

    grouped, grouped_gradients = specific()
    monkeypatch.setattr("ccsd.model.net.on_gpu", lambda _: True)
    apart, gradients = specific()
    torch.testing.assert_close(apart, grouped, rtol=1e-2, atol=1e-4 * float(grouped.abs().max()))
    assert len(gradients) == len(grouped_gradients)
    for ours, theirs in zip(gradients, grouped_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2 * float(theirs.abs().max()))

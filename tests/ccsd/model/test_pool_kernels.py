"""The kernels of the maximum pooling, by Triton's interpreter where there is no GPU."""

import pytest
import torch
from torch.nn import functional

from ccsd.model import pooling
from ccsd.model.layout import channels_last
from support.kernels import DEVICE, by_kernels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 16, 6, 4, 8), (1, 3, 5, 7, 3), (1, 80, 2, 2, 2), (2, 1, 1, 1, 9)])
def test_maxima_and_gradients_are_those_of_torch(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_kernels("ccsd.model.pool_kernels")
    monkeypatch.setattr(pooling, "by_triton", lambda _: True)
    torch.manual_seed(0)
    x = channels_last(torch.randint(-9, 9, shape).to(DEVICE, dtype)).requires_grad_()  # many are equal
    found, wanted = pooling.max_pool(x), functional.max_pool3d(x, 3, 2, padding=1)
    assert torch.equal(found, wanted)
    weights = torch.randint_like(wanted, -9, 9)  # whose sums are exact
    found, wanted = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, wanted))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_passed_on(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    by_kernels("ccsd.model.pool_kernels")
    monkeypatch.setattr(pooling, "by_triton", lambda _: True)
    x = torch.zeros(1, 4, 4, 4, 4, device=DEVICE)
    x[:, :, 1, 2, 1] = value
    x[:, 1] = value
    found, wanted = pooling.max_pool(x), functional.max_pool3d(x, 3, 2, padding=1)
    torch.testing.assert_close(found, wanted, equal_nan=True)

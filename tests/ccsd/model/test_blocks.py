"""What blocks do on a GPU, seen without one."""

import torch
from torch.nn import functional

from ccsd.model.blocks import Norm, mean_pool


def test_the_pooling_of_gpus_is_that_of_cpus(monkeypatch) -> None:
    class OfGpu(torch.Tensor):
        device = torch.device("meta")

    x = torch.randn(2, 3, 4, 6, 8, requires_grad=True)
    found, wanted = mean_pool(x.as_subclass(OfGpu), 2), functional.avg_pool3d(x, 2)
    torch.testing.assert_close(found.as_subclass(torch.Tensor), wanted)
    weights = torch.randn_like(wanted)
    first, second = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (found.as_subclass(torch.Tensor), wanted))
    torch.testing.assert_close(first, second)


def test_the_norm_of_gpus_keeps_the_type_and_is_that_of_cpus() -> None:
    norm = Norm(16)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 16, 4, 4, 4).bfloat16()
    found = norm.in_its_own_type(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), norm(x.float()), atol=0.05, rtol=0.02)

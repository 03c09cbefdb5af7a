"""The kernels that project features, by Triton's interpreter where there is no GPU."""

import pytest
import torch

from support.kernels import DEVICE, by_kernels, distance

HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16
"""The interpreter has no products of bfloat16."""


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize(
    "sizes", [(2, 3, 300, 64, 16), (1, 1, 128, 32, 8), (2, 4, 130, 48, 12), (1, 2, 40, 128, 32), (1, 1, 1, 4, 1)]
)
def test_products_and_gradients_are_those_of_torch(
    sizes: tuple[int, int, int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = by_kernels("ccsd.model.projection_kernels")
    monkeypatch.setattr(kernels, "BLOCKS", 6)  # several tiles for each block of the sums
    samples, sets, voxels, inputs, outputs = sizes
    torch.manual_seed(0)
    rows, dy = torch.randn(2, samples, sets, voxels, outputs, device=DEVICE, dtype=dtype)
    features = torch.randn(samples, voxels, inputs, device=DEVICE, dtype=dtype)
    matrix = torch.randn(samples, sets, inputs, outputs, device=DEVICE)
    leaves = [t.to(dtype).double().requires_grad_() for t in (features, matrix)]
    wanted = rows.double() + leaves[0][:, None] @ leaves[1]
    close = 1e-5 if dtype == torch.float32 else 1e-2
    assert distance(kernels.forward(rows, features, matrix), wanted.detach()) < close
    for found, right in zip(
        kernels.backward(dy, features, matrix), torch.autograd.grad(wanted, leaves, dy.double()), strict=True
    ):
        assert found.shape == right.shape
        assert distance(found, right) < close

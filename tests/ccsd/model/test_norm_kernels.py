"""The kernels of the normalisation, by Triton's interpreter where there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ccsd.model.layout import channels_last
from support.kernels import DEVICE, by_kernels, distance

ROOT = Path(__file__).resolve().parents[3]
SHAPES = [
    (2, 16, (7, 6, 5)),
    (3, 48, (4, 9, 8)),
    (1, 128, (3, 3, 3)),
    (2, 12, (5, 4, 3)),
]
"""Samples, channels and space."""
KINDS = [(torch.float32, 0.01, True), (torch.bfloat16, 0.01, False), (torch.float32, 1.0, False)]
OTHERS = [(torch.float32, 0.01, False), (torch.bfloat16, 0.01, True), (torch.float32, 1.0, True)]
"""Type, slope, and whether something is added."""


def inputs(samples: int, channels: int, space: tuple[int, int, int], dtype: torch.dtype) -> list[Tensor]:
    """Return x, what is added, weight, bias and a gradient."""
    torch.manual_seed(0)
    x = channels_last((torch.randn(samples, channels, *space) * 2 + 3).to(dtype))
    added, gradient = (channels_last(torch.randn(samples, channels, *space).to(dtype)) for _ in range(2))
    return [t.to(DEVICE) for t in (x, added, *torch.randn(2, channels), gradient)]


def by_torch(
    x: Tensor, added: Tensor | None, groups: int, weight: Tensor, bias: Tensor, slope: float, gradient: Tensor
) -> list[Tensor]:
    """Return output and gradients in float64."""
    leaves = [t.double().requires_grad_() for t in (x, weight, bias, *([] if added is None else [added]))]
    y = functional.group_norm(leaves[0], groups, *leaves[1:3], 1e-5)
    y = functional.leaky_relu(y if added is None else y + leaves[3], slope)
    return [y.detach(), *torch.autograd.grad(y, leaves, gradient.double())]


@pytest.mark.parametrize(
    ("shape", "kind"), [*((shape, kind) for shape in SHAPES for kind in KINDS), *((SHAPES[0], kind) for kind in OTHERS)]
)
def test_output_and_gradients_are_those_of_torch(
    shape: tuple[int, int, tuple[int, int, int]], kind: tuple[torch.dtype, float, bool]
) -> None:
    (samples, channels, space), (dtype, slope, is_added) = shape, kind
    kernels = by_kernels("ccsd.model.norm_kernels")
    x, added, weight, bias, gradient = inputs(samples, channels, space, dtype)
    groups = max(1, channels // 8)
    wanted = by_torch(x, added if is_added else None, groups, weight, bias, slope, gradient)
    y, moments, affine = kernels.forward(x, added if is_added else None, groups, weight, bias, 1e-5, slope)
    dx, d_added, d_weight, d_bias = kernels.backward(
        gradient, x, y if is_added else None, weight, moments, affine, groups, slope
    )
    close = 1e-5 if dtype == torch.float32 else 1e-2
    for found, right in zip([y, dx, d_weight, d_bias, *([d_added] if is_added else [])], wanted, strict=True):
        assert found.shape == right.shape
        assert distance(found, right) < close


def test_the_same_input_gives_the_same_bits() -> None:
    kernels = by_kernels("ccsd.model.norm_kernels")
    x, _, weight, bias, _ = inputs(1, 16, (16, 16, 8), torch.float32)
    first, second = (kernels.forward(x, None, 2, weight, bias, 1e-5, 0.01)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.slow
def test_every_kernel_compiles_for_gpus(tmp_path: Path) -> None:
    by_kernels("ccsd.model.norm_kernels")
    surroundings = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, ROOT / "tests/support/compile_kernels.py"]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 6 * (3 + 2 * 3 + 4 + 2 + 3)

"""What tests of kernels share."""

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where kernels run: on the CPU by Triton's interpreter."""


def by_kernels(module: str) -> Any:
    """Return a module of kernels."""
    pytest.importorskip("triton", reason="Triton comes with the tools of development, on Linux")
    return importlib.import_module(module)


def go_the_way_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the network compute as on a GPU, wherever its tensors are."""
    for module in ("blocks", "compose", "net"):
        monkeypatch.setattr(f"ccsd.model.{module}.on_gpu", lambda _: True)


def distance(found: Tensor, right: Tensor) -> float:
    """Return how far a result is from the right one, as a share of it."""
    return float((found.double() - right.double()).norm() / right.double().norm())

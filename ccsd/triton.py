"""Whether Triton is at hand, in which the kernels of this project for GPUs are written."""

import importlib.util
import os
import shutil
import sysconfig
from functools import cache
from pathlib import Path

import torch
from torch import Tensor


@cache
def missing_for_triton() -> str | None:
    """Return what kernels in Triton lack here: it links a launcher for each with a C compiler."""
    if importlib.util.find_spec("triton") is None:
        return "Triton, which comes with torch for Linux, and which was not found"
    if not any(map(shutil.which, (os.environ.get("CC", "gcc"), "gcc", "clang"))):
        return "a C compiler (gcc), which was not found"
    headers = Path(sysconfig.get_path("include"))
    return None if (headers / "Python.h").exists() else f"Python's headers (python3-dev), which are not in {headers}"


def by_triton(x: Tensor) -> bool:
    """Tell whether the kernels compute with a tensor: not where torch.compile makes kernels of its own."""
    return x.is_cuda and not torch.compiler.is_compiling() and missing_for_triton() is None

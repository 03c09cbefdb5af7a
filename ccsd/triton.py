"""Whether Triton is available; the GPU kernels of this project are written in it."""

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
    """Return what is missing for kernels in Triton, which links a launcher for each with a C compiler."""
    if importlib.util.find_spec("triton") is None:
        return "Triton, which comes with torch for Linux but was not found"
    if not any(map(shutil.which, (os.environ.get("CC", "gcc"), "gcc", "clang"))):
        return "a C compiler (gcc), which was not found"
    headers = Path(sysconfig.get_path("include"))
    return None if (headers / "Python.h").exists() else f"Python's headers (python3-dev), which are not in {headers}"


def by_triton(x: Tensor) -> bool:
    """Return whether the kernels are used for a tensor; not if torch.compile generates its own kernels."""
    return x.is_cuda and not torch.compiler.is_compiling() and missing_for_triton() is None

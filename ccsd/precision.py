"""The type that autocast computes in for a training's precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from ccsd.device import AMPERE

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the autocast context for a training of this precision; for fp32 it does nothing."""
    return torch.autocast(device.type, AUTOCAST[precision]) if precision in AUTOCAST else nullcontext()


def inference_autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context for a model trained like this; fp32 on CPUs and on GPUs that only emulate bfloat16."""
    usable = device.type == "cuda" and (precision != "bf16" or torch.cuda.get_device_capability(device) >= AMPERE)
    return autocast(precision if usable else "fp32", device)

"""What a training's precision means to torch: the type that autocast computes in."""

from contextlib import AbstractContextManager, nullcontext

import torch

from ccsd.device import AMPERE

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a training of this precision computes; that of fp32 does nothing."""
    return torch.autocast(device.type, AUTOCAST[precision]) if precision in AUTOCAST else nullcontext()


def inference_autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context for a model that was trained so; on CPUs and GPUs that only emulate bfloat16, that of fp32."""
    usable = device.type == "cuda" and (precision != "bf16" or torch.cuda.get_device_capability(device) >= AMPERE)
    return autocast(precision if usable else "fp32", device)

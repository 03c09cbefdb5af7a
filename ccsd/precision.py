"""What a training's precision means to torch: the type that autocast computes in."""

import torch

from ccsd.device import AMPERE

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return autocast for a training of this precision; disabled for fp32."""
    return torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST)


def inference_autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return autocast for a model that was trained so; disabled on CPUs and where a GPU only emulates bfloat16."""
    usable = device.type == "cuda" and (precision != "bf16" or torch.cuda.get_device_capability(device) >= AMPERE)
    return autocast(precision if usable else "fp32", device)

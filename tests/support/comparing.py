"""What two trainings must have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ccsd.records import read_events

LOSS, WEIGHT = 1e-5, 5e-5
"""How far float32 trainings may differ when sums are taken in another order. The learning rate is 1e-3, so a weight has
moved by up to 6e-3 after 6 steps; AdamW divides by the gradients' size, which carries rounding into the few weights
whose gradients are next to nothing."""
TIMES = {"step_s", "data_s", "data_share", "samples_per_s", "parts_s", "memory_mb"}
ON_GPUS = {"device_share", "tflops", "mfu", "memory_reserved_mb"}


def science(run: Path) -> list[dict[str, Any]]:
    """Return what a run recorded, without what depends on the machine."""
    return [{k: v for k, v in event.items() if k not in TIMES | ON_GPUS} for event in read_events(run)]


def losses(run: Path) -> list[float]:
    return [event["loss"] for event in read_events(run) if event["event"] == "train"]


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    """Hold two runs to the same weights and the same record, bit for bit."""
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert science(one) == science(other)


def assert_close(one: Mapping[str, Tensor], other: Mapping[str, Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")

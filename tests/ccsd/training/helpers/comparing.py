"""What two trainings must have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ccsd.training.record import read_events

TIMES = {"step_s", "data_s", "data_share", "samples_per_s", "memory_mb"}


def science(run: Path) -> list[dict[str, Any]]:
    """Return what a run recorded, without what depends on the machine."""
    return [{k: v for k, v in event.items() if k not in TIMES} for event in read_events(run)]


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

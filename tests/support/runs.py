"""Finished runs without a training: for what reads them."""

from pathlib import Path
from typing import Any

import torch

from ccsd.config import Config
from ccsd.model import Network, build_network
from ccsd.model.weights import file_hash, save_weights
from ccsd.records import RunRecord
from ccsd.study import WEIGHTS
from preprocess.task import Task
from support.tasks import GLIOMA

SMALL = {"width": 4, "levels": 2}
PATCH = [16, 16, 16]


def config_of(task: Task = GLIOMA, model: dict[str, Any] | None = None, **train: Any) -> Config:
    """Return a configuration with a small network."""
    train = {"patch": PATCH, "precision": "fp32", **train}
    raw = {"name": "tiny", "phantom": {}, "task": task.model_dump(mode="json"), "train": train}
    return Config.model_validate(raw | {"model": SMALL if model is None else model})


def write_run(folder: Path, config: Config, seed: int = 5, **record: Any) -> Network:
    """Write a finished run of random weights and return its network."""
    torch.manual_seed(seed)
    net = build_network(config.model, config.task).eval()
    for parameter in net.parameters():  # scales and shifts of the normalisations too
        torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir(parents=True)
    save_weights(folder / WEIGHTS, net.state_dict(), {})
    found = RunRecord(
        config=config.model_dump(mode="json"),
        task=config.task.label,
        model_hash=file_hash(folder / WEIGHTS),
        spacing_mm=(1.0, 1.0, 1.0),
        **record,
    )
    found.write(folder)
    return net

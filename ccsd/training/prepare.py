"""What `train.activation_checkpointing`, `train.compile` and `train.deterministic` do to the network and to torch."""

import os
import shutil

import torch

from ccsd.config.schema import Config
from ccsd.errors import UsageError
from ccsd.model.net import SharedSpecificNet


def prepared_net(config: Config, device: torch.device) -> SharedSpecificNet:
    """Return a new network, seeded and as the training settings want it.

    Raises
    ------
    UsageError
        If the settings ask for what cannot be had here.
    """
    settings = config.train
    if settings.deterministic:
        _insist_on_determinism(config, device)
    torch.manual_seed(settings.seed)
    net = SharedSpecificNet(config.model)
    if settings.activation_checkpointing:
        net.recompute_encoders()
    if settings.compile:
        _compile(net, device)
    return net


def _insist_on_determinism(config: Config, device: torch.device) -> None:
    if device.type == "cuda" and config.model.backbone == "shaspec":
        raise UsageError(
            "train.deterministic: torch has no deterministic max pooling and trilinear interpolation for GPUs, which "
            "model.backbone=shaspec needs; use model.backbone=unet or train.deterministic=false"
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch refuses to be deterministic on GPUs without it
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def _compile(net: SharedSpecificNet, device: torch.device) -> None:
    """Compile in place the parts that cost; the names of the weights stay as they are."""
    if device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise UsageError(
            "train.compile needs a C++ compiler for processes without a GPU, and none was found; install g++ or use "
            "train.compile=false"
        )
    for part in (net.shared, net.specific, net.decoder):
        part.compile()

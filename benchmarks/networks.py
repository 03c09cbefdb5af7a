"""Networks, masks and timing that the benchmarks of training and inference share."""

import argparse
from collections.abc import Callable

import torch
from measure import Answer, timed
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ccsd.config.schema import Model
from ccsd.model import SharedSpecificNet
from preprocess.modalities import MODALITIES, all_subsets

VOLUME_HELP = "voxels along each axis, a multiple of 32"


def network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that the benchmarks of networks share."""
    parser.add_argument("--backbone", choices=("unet", "shaspec"), default="unet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def build(backbone: str, device: torch.device) -> SharedSpecificNet:
    """Return a network of the default size."""
    torch.manual_seed(0)
    return SharedSpecificNet(Model.model_validate({"backbone": backbone})).to(device)


def dynunet(device: torch.device) -> nn.Module:
    """Return MONAI's DynUNet for four channels and three regions, with the kernels that nnU-Net plans for BraTS."""
    from monai.networks.nets.dynunet import DynUNet

    kernels = [[3, 3, 3]] * 6
    strides = [[1, 1, 1], *[[2, 2, 2]] * 5]
    return DynUNet(3, 4, 3, kernels, strides, strides[1:]).to(device)


def all_masks(device: torch.device) -> Tensor:
    """Return the 15 combinations in the order of the field, 15 x 4."""
    return torch.tensor([[m in subset for m in MODALITIES] for subset in all_subsets()], device=device)


def flops(action: Callable[[], object]) -> int:
    """Return the floating-point operations of an action."""
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops()


def synchronised(action: Callable[[], object], device: torch.device) -> Answer:
    """Time an action to its end on the device."""

    def whole() -> None:
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return timed(whole)

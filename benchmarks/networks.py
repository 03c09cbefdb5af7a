"""Networks, masks and timing that the benchmarks of training and inference share."""

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial

import torch
from measure import Answer, machine, ratio, spread, table, take_turns, timed
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ccsd.config.schema import Model
from ccsd.model import SharedSpecificNet
from preprocess.task import default_task

TASK = default_task()

VOLUME_HELP = "voxels along each axis, a multiple of 32"


def network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that the benchmarks of networks share."""
    parser.add_argument("--backbone", choices=("light", "unet", "shaspec"), default="light")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def build(backbone: str, device: torch.device) -> SharedSpecificNet:
    """Return a network of the default size."""
    torch.manual_seed(0)
    return SharedSpecificNet(Model.model_validate({"backbone": backbone}), TASK).to(device)


def dynunet(device: torch.device | None = None) -> nn.Module:
    """Return MONAI's DynUNet for four channels and three regions, with the kernels that nnU-Net plans for BraTS."""
    from monai.networks.nets.dynunet import DynUNet

    kernels = [[3, 3, 3]] * 6
    strides = [[1, 1, 1], *[[2, 2, 2]] * 5]
    net = DynUNet(3, 4, 3, kernels, strides, strides[1:])
    return net if device is None else net.to(device)


def all_masks(device: torch.device) -> Tensor:
    """Return the 15 combinations in the order of published tables, 15 x 4."""
    return torch.tensor([[m in name.split("+") for m in TASK.modalities] for name in TASK.subset_names], device=device)


def compare(
    actions: Mapping[str, Callable[[], object]], options: argparse.Namespace, *, baseline: str, claimed: str, what: str
) -> None:
    """Time the actions in turns and print how long each took relative to the baseline."""
    device = torch.device(options.device)
    counted = {name: flops(action) for name, action in actions.items()}
    found = take_turns({n: partial(synchronised, action, device) for n, action in actions.items()}, options.rounds)
    ratios = {name: ratio(found, name, baseline, "wall") for name in actions}
    rows = [
        (name, f"{counted[name] / 1e9:.0f}", f"{ratios[name]:.2f}", f"{least:.2f}", f"{most:.2f}")
        for name in actions
        for least, most in [spread(found, name, baseline, "wall")]
    ]
    print(f"{options.backbone}, {options.device}; {machine()}")
    print(table([(what, "GFLOP", f"time / {baseline}", "least", "most"), *rows]))
    if options.json:
        report = {"ratio": ratios[claimed], "backbone": options.backbone, "ratios": ratios, "flops": counted}
        print(json.dumps(report))


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

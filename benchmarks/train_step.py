"""What distillation costs: a step with HMSD (4 subsets) compared with a plain full-set step of the same network.

    python benchmarks/train_step.py [--backbone light] [--patch 64] [--rounds 5] [--device cpu] [--json]

Also timed: the whole objective (HMSD, DMCD and its scoring), the naive way (one complete forward per subset, as other
published code does it), and MONAI's DynUNet as the price of a normal four-channel network. All take turns in one
process. Forward and backward are timed, the optimizer is not: it is the same for all. FLOPs are counted by torch.
`ratio` is HMSD's time divided by the plain step's, as the median over the rounds.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from networks import TASK, VOLUME_HELP, all_masks, build, compare, dynunet, network_options
from torch import Tensor

from ccsd.config.schema import Distillation
from ccsd.distillation.losses import region_targets, segmentation_loss
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import draw_step
from ccsd.model import SharedSpecificNet

Step = Callable[[], None]


def main() -> None:
    """Build the steps, time them in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    network_options(parser)
    parser.add_argument("--patch", type=int, default=64, help=VOLUME_HELP)
    options = parser.parse_args()
    device = torch.device(options.device)
    image = torch.randn(1, 4, *[options.patch] * 3, device=device)
    label = torch.randint(0, 4, (1, *[options.patch] * 3), device=device)
    net = build(options.backbone, device).train()
    steps: dict[str, Step] = {
        "plain": partial(objective_step, net, "full", image, label),
        "hmsd": partial(objective_step, net, "hmsd", image, label),
        "ccsd": partial(objective_step, net, "ccsd", image, label),
        "naive, 4 forwards": partial(naive_step, net, image, label),
        "DynUNet": partial(dynunet_step, dynunet(device).train(), image, label),
    }
    compare(steps, options, baseline="plain", claimed="hmsd", what=f"step, patch {options.patch}")


def objective_step(net: SharedSpecificNet, method: str, image: Tensor, label: Tensor) -> None:
    """Run forward and backward of a method's objective."""
    settings = Distillation.model_validate({"method": method, "per_step": "all"})
    available = torch.ones(len(image), 4, dtype=torch.bool)
    draw = draw_step(settings, TASK, available, seed=0, step=0, total_steps=1, samples=[0]).to(image.device)
    objective = Objective(net, settings, TASK).to(image.device)
    objective(image, label, available.to(image.device), draw)["loss"].backward()
    net.zero_grad()


def naive_step(net: SharedSpecificNet, image: Tensor, label: Tensor) -> None:
    """Run one complete forward and backward per subset: the full set and one subset of each size."""
    target = region_targets(label, TASK)
    for mask in all_masks(image.device)[[14, 10, 4, 0]]:
        features = net.encode(image, mask[None])
        segmentation_loss(net.decode(features, mask[None, None], 1), target).mean().backward()
    net.zero_grad()


def dynunet_step(net: torch.nn.Module, image: Tensor, label: Tensor) -> None:
    """Run forward and backward of a network that takes the four modalities as channels."""
    segmentation_loss(net(image), region_targets(label, TASK)).mean().backward()
    net.zero_grad()


if __name__ == "__main__":
    main()

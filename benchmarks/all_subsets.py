"""What 15 combinations cost: all of one volume, encoded once, compared with one full forward of the same network.

    python benchmarks/all_subsets.py [--backbone light] [--volume 96] [--rounds 5] [--device cpu] [--json]

Also timed: the naive way (15 complete forwards, as other published code does it), one combination of a single modality
(which encodes only that one), and MONAI's DynUNet. All take turns in one process. `ratio` is the time for all 15
divided by the time of one full forward, as the median over the rounds.
"""

import argparse
from functools import partial

import torch
from networks import VOLUME_HELP, all_masks, build, compare, dynunet, network_options
from torch import Tensor

from ccsd.model import SharedSpecificNet


def main() -> None:
    """Build the forwards, time them in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    network_options(parser)
    parser.add_argument("--volume", type=int, default=96, help=VOLUME_HELP)
    options = parser.parse_args()
    device = torch.device(options.device)
    image = torch.randn(1, 4, *[options.volume] * 3, device=device)
    net = build(options.backbone, device).eval()
    masks = all_masks(device)
    peer = dynunet(device).eval()
    with torch.inference_mode():
        forwards = {
            "one full forward": partial(net.segment, image, masks[-1:]),
            "15 combinations": partial(net.segment, image, masks),
            "naive, 15 forwards": partial(naive, net, image, masks),
            "one modality": partial(net.segment, image, masks[:1]),
            "DynUNet": partial(peer, image),
        }
        what = f"forward, volume {options.volume}"
        compare(forwards, options, baseline="one full forward", claimed="15 combinations", what=what)


def naive(net: SharedSpecificNet, image: Tensor, masks: Tensor) -> None:
    """Encode everything again for each combination, with absent modalities as zeros."""
    for mask in masks:
        net.decode(net.encode(image, mask[None]), mask[None, None], 1)


if __name__ == "__main__":
    main()

"""What a training step holds in memory at its peak, by option.

    python benchmarks/step_memory.py [--backbone unet] [--patch 128] [--batch 2] [--json]

Allocations are counted by PyTorch's memory tracker on tensors that have a shape but no contents: exact, in seconds, for
patches that do not fit into this machine. Included are weights, gradients and activations; not included are the
optimizer's moments (two more floats per weight, shared out by ZeRO) and what CUDA takes for itself and loses between
blocks. `ratio` is the peak of the whole method with both options that save memory to the plain step's.
"""

import argparse
import json

import torch
from measure import table
from networks import TASK, VOLUME_HELP
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from ccsd.config.schema import Distillation, Model
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import draw_step
from ccsd.model import SharedSpecificNet

TOGETHER, ONE_BY_ONE = 8, 1
STEPS = {
    "plain": ("full", TOGETHER, False),
    "plain, activation checkpointing": ("full", TOGETHER, True),
    "hmsd": ("hmsd", TOGETHER, False),
    "hmsd, decode_batch 1": ("hmsd", ONE_BY_ONE, False),
    "ccsd": ("ccsd", TOGETHER, False),
    "ccsd, decode_batch 1": ("ccsd", ONE_BY_ONE, False),
    "ccsd, activation checkpointing": ("ccsd", TOGETHER, True),
    "ccsd, decode_batch 1, activation checkpointing": ("ccsd", ONE_BY_ONE, True),
}


def main() -> None:
    """Count each step's peak and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=("unet", "shaspec"), default="unet")
    parser.add_argument("--patch", type=int, default=128, help=VOLUME_HELP)
    parser.add_argument("--batch", type=int, default=2, help="samples of one process")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    peaks = {
        name: [peak(options, method, decode_batch, again, bf16=bf16) for bf16 in (False, True)]
        for name, (method, decode_batch, again) in STEPS.items()
    }
    print(f"{options.backbone}, {options.batch} patches of {options.patch}^3, GiB")
    print(table([("step", "fp32", "bf16"), *((name, *(f"{p:.1f}" for p in both)) for name, both in peaks.items())]))
    if options.json:
        print(json.dumps({"ratio": list(peaks.values())[-1][0] / peaks["plain"][0], "GiB": peaks}))


def peak(options: argparse.Namespace, method: str, decode_batch: int, again: bool, *, bf16: bool) -> float:
    """Return the peak of forward and backward in GiB."""
    settings = Distillation.model_validate({"method": method})
    samples = range(options.batch)
    available = torch.ones(options.batch, 4, dtype=torch.bool)
    draw = draw_step(settings, TASK, available, seed=0, step=0, total_steps=1, samples=samples)
    shape = [options.patch] * 3
    with FakeTensorMode(allow_non_fake_inputs=True):
        net = SharedSpecificNet(Model.model_validate({"backbone": options.backbone}), TASK)
        if again:
            net.recompute_encoders()
        objective = Objective(net, settings, TASK, decode_batch=decode_batch, precision="bf16" if bf16 else "fp32")
        tracker = MemTracker()
        tracker.track_external(objective)
        with tracker:
            image = torch.zeros(options.batch, 4, *shape)
            label = torch.zeros(options.batch, *shape, dtype=torch.uint8)
            objective(image, label, available, draw)["loss"].backward()
        (memory,) = tracker.get_tracker_snapshot("peak").values()
    return float(memory["Total"]) / 2**30


if __name__ == "__main__":
    main()

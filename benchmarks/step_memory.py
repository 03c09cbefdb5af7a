"""The peak GPU memory of a training step, by option, and the bytes that it moves.

    python benchmarks/step_memory.py [--backbone light] [--patch 128] [--batch 2] [--json]

Both are counted on tensors that have a shape but no data, under CUDA's rules (`counting.py`): exactly, in seconds, on
any machine. Weights, gradients and activations are included. The optimizer's moments (two more floats per weight,
divided among processes by ZeRO) and CUDA's own memory and fragmentation are not. Where steps differ, the peak is that
of the largest and the bytes are their mean. Bytes are those of all kernels, before any are fused. `ratio` is the peak
of the whole method with both memory-saving options, divided by the plain step's.
"""

import argparse
import json
from typing import Any

from counting import Step
from measure import table
from networks import VOLUME_HELP

from ccsd.config.schema import Distillation, Model

TOGETHER, ONE_BY_ONE = 8, 1
EVERY_SET = {"per_step": "all", "supervise_path": True}
STEPS = {
    "plain": ({"method": "full"}, TOGETHER, False),
    "plain, activation checkpointing": ({"method": "full"}, TOGETHER, True),
    "hmsd": ({"method": "hmsd"}, TOGETHER, False),
    "ccsd, per_step: all, supervise_path": (EVERY_SET, TOGETHER, False),
    "the same, decode_batch 1": (EVERY_SET, ONE_BY_ONE, False),
    "ccsd": ({}, TOGETHER, False),
    "ccsd, decode_batch 1": ({}, ONE_BY_ONE, False),
    "ccsd, activation checkpointing": ({}, TOGETHER, True),
    "ccsd, decode_batch 1, activation checkpointing": ({}, ONE_BY_ONE, True),
}


def main() -> None:
    """Count each step's peak and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=("light", "unet", "shaspec"), default="light")
    parser.add_argument("--patch", type=int, default=128, help=VOLUME_HELP)
    parser.add_argument("--batch", type=int, default=2, help="samples of one process")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    rows = {name: counted(options, *step) for name, step in STEPS.items()}
    print(f"{options.backbone}, {options.batch} patches of {options.patch}^3")
    lines = [(name, *(f"{value:.1f}" for value in row[:2]), f"{row[2]:.0f}") for name, row in rows.items()]
    print(table([("step", "fp32, GiB", "bf16, GiB", "bf16, GB moved"), *lines]))
    if options.json:
        print(json.dumps({"ratio": list(rows.values())[-1][1] / rows["plain"][1], "rows": rows}))


def counted(
    options: argparse.Namespace, settings: dict[str, Any], decode_batch: int, again: bool
) -> tuple[float, float, float]:
    """Return the peaks in float32 and bfloat16 in GiB, and the GB that the kernels of the latter move."""
    steps = [
        Step(
            Model.model_validate({"backbone": options.backbone}),
            Distillation.model_validate(settings),
            options.batch,
            options.patch,
            precision,
            decode_batch,
            recompute=again,
        )
        for precision in ("fp32", "bf16")
    ]
    return steps[0].peak_gib(), steps[1].peak_gib(), steps[1].mean_traffic()[0] / 1e9


if __name__ == "__main__":
    main()

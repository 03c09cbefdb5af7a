"""Memory of each process under ZeRO stages 0 to 3 and under plain DDP with AdamW, compared with a formula.

    python benchmarks/zero_memory.py [--backbone light] [--width 32] [--processes 2] [--patch 16] [--json]

Each variant gets new processes that take three steps. `state` is what stays between steps in addition to an idle
process (resident memory; allocated memory on a GPU), and `peak` is the maximum during a step in addition to the same;
both are the largest of all processes. The formula counts float32 weights P, over N processes, and what DeepSpeed keeps
for float32 training:

    DDP, stage 0    P weights + P gradients + 2P moments (DDP: + P in its buckets; stage 0 frees the gradients)
    stage 1, 2      P weights + (P copy + 2P moments) / N
    stage 3         (P weights + P copy + P gradients + 2P moments) / N, small parameters whole

`ratio` is DDP's `state` divided by that of stage 3.
"""

import argparse
import ctypes
import gc
import json
import os
from pathlib import Path

import torch
from measure import Answer, machine, table
from zero_steps import DDP, barrier, launch, options, size_of, stepper

from ccsd.training.distributed import Process

STEPS = 3
MIB = 2**20


def main() -> None:
    """Measure one variant after the other and print the table."""
    chosen = options(__doc__, patch=16).parse_args()
    size, count = size_of(chosen), chosen.processes
    names = chosen.variants.split(",")
    found = {name: _largest(launch(measured, chosen, name)) for name in names}
    rows = [
        (
            name,
            f"{expected(name, size, count) / MIB:.0f}",
            *(f"{found[name][key] / MIB:.0f}" for key in ("state", "peak", "parameters", "optimizer")),
        )
        for name in names
    ]
    print(f"{chosen.backbone} ({size / 4e6:.0f} M), patch {chosen.patch}, {count} processes; {machine()}; MiB")
    print(table([("variant", "formula", "state", "peak", "weights", "moments"), *rows]))
    if chosen.json:
        both = DDP in found and "3" in found
        print(json.dumps({"ratio": found[DDP]["state"] / found["3"]["state"] if both else None, "bytes": found}))


def expected(name: str, size: int, count: int) -> float:
    """Return the bytes that the formula gives."""
    by_variant = {DDP: 5.0, "0": 3.0, "1": 1 + 3 / count, "2": 1 + 3 / count, "3": 5 / count}
    return by_variant[name] * size


def measured(process: Process, chosen: argparse.Namespace, name: str) -> Answer:
    """Return the bytes of this process."""
    idle = _bytes(process.device)
    training = stepper(name, chosen, process)
    _reset_peak(process.device)
    for _ in range(STEPS):
        training.step()
        barrier(process)
    peak = _peak(process.device)
    gc.collect()
    return {
        "state": _bytes(process.device) - idle,
        "peak": peak - idle,
        "parameters": training.parameter_bytes(),
        "optimizer": training.optimizer_bytes(),
    }


def _largest(answers: list[Answer]) -> Answer:
    return {key: max(answer[key] for answer in answers) for key in answers[0]}


def _bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


if __name__ == "__main__":
    main()

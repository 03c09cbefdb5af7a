"""Time of a training step under ZeRO stages 0 to 3 compared with plain DDP with AdamW, in one paired run.

    python benchmarks/zero_speed.py [--backbone light] [--processes 2] [--patch 32] [--rounds 5] [--json]

All variants live in the same processes and take turns step by step, in a new order in each round, so that a busy
machine affects all alike. Everything else is equal: network, objective, batch, clipping. `ratio` is the time of a step
with ZeRO stage 1 (the default) divided by that of DDP, as the median over the rounds.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

from measure import Answer, machine, ratio, spread, table, take_turns, timed
from zero_steps import DDP, barrier, launch, options, size_of, stepper

from ccsd.training.distributed import Process


def main() -> None:
    """Run the processes and print the table of the first one."""
    parser = options(__doc__, patch=32)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    found: dict[str, list[Answer]] = launch(turns, chosen)[0]
    rows = [
        (name, f"{min(a['wall'] for a in found[name]):.2f}", *(f"{v:.2f}" for v in (middle, *between)))
        for name in found
        for middle in [ratio(found, name, DDP, "wall")]
        for between in [spread(found, name, DDP, "wall")]
    ]
    million = size_of(chosen) / 4e6
    print(f"{chosen.backbone} ({million:.0f} M), patch {chosen.patch}, {chosen.processes} processes; {machine()}")
    print(table([("variant", "fastest step, s", "time / DDP", "least", "most"), *rows]))
    if chosen.json:
        ratios: dict[str, Any] = {name: ratio(found, name, DDP, "wall") for name in found}
        print(json.dumps({"ratio": ratios.get("1"), "ratios": ratios, "processes": chosen.processes}))


def turns(process: Process, chosen: argparse.Namespace) -> dict[str, list[Answer]]:
    """Take turns; every process draws the same order."""
    actions = {
        name: _waited(stepper(name, chosen, process).step, process)
        for name in dict.fromkeys([DDP, *chosen.variants.split(",")])
    }
    return take_turns(actions, chosen.rounds)


def _waited(step: Callable[[], None], process: Process) -> Callable[[], Answer]:
    def run() -> None:
        step()
        barrier(process)

    def action() -> Answer:
        barrier(process)
        return timed(run)

    return action


if __name__ == "__main__":
    main()

"""Conversion of a case from NIfTI: `ccsd convert` compared with nnU-Net v2's preprocessing of the same files.

    python benchmarks/conversion.py [--json]

Each runs in its own process with one thread, one at a time, in a new order in each round; a ratio is the median over
the rounds. `ratio` is nnU-Net's wall time divided by ours, for one case on one core.
"""

import json
import statistics
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import inputs
from measure import Answer, Peer, machine, ratio, spread, table, take_turns


def main() -> None:
    """Measure and print."""
    options = inputs.arguments(__doc__ or "")
    cases = inputs.sources(options.work, options.cases)
    source = options.work / f"source-{options.cases}"
    python = inputs.peer_python(options.peer_env)
    names = inputs.peer_dataset(options.work, cases, python)
    environment = inputs.peer_environment(options.work)
    peer = Peer(python, inputs.HERE / "peer_nnunet.py", inputs.DATASET, environment=environment)
    own = Peer(sys.executable, inputs.HERE / "own_conversion.py", source, options.work / "converted")
    found = take_turns(
        {
            "nnunet": _each(peer, "convert", names),
            "ours": _each(own, "convert", names),
            "prepare": _each(own, "prepare", names),
            "inflate": _each(own, "inflate", names),
        },
        options.rounds,
    )
    peer.close()
    own.close()
    print(f"{machine()}; {options.cases} cases of {inputs.SHAPE}, {options.rounds} rounds\n")
    print(table([("", "nnU-Net / ours", "range"), *_ratios(found)]))
    print()
    arrays = inputs.whole_arrays(options.work, inputs.ours(options.work, options.cases))
    print(table([("", "ours", "nnU-Net"), *_sizes(found, arrays)]))
    shares = _share(found, "inflate"), 1 - _share(found, "prepare")
    print(f"\nOf our CPU time, {shares[0]:.0%} is reading and inflating, and {shares[1]:.0%} writing.")
    if options.json:
        print(
            json.dumps({"ratio": ratio(found, "nnunet", "ours", "wall"), "cpu": ratio(found, "nnunet", "ours", "cpu")})
        )


def _each(peer: Peer, do: str, names: list[str]) -> Callable[[], Answer]:
    """Return an action that takes the next case at each call."""
    turn = cycle(names)
    return lambda: peer.ask(do, case=next(turn))


def _ratios(found: dict[str, list[Answer]]) -> list[tuple[str, str, str]]:
    rows = []
    for key, name in (("wall", "wall time"), ("cpu", "CPU time")):
        low, high = spread(found, "nnunet", "ours", key)
        rows.append((name, f"{ratio(found, 'nnunet', 'ours', key):.1f}", f"{low:.1f} to {high:.1f}"))
    return rows


def _sizes(found: dict[str, list[Answer]], arrays: Path) -> list[tuple[str, str, str]]:
    peaks = [max(answer["peak"] for answer in found[name]) for name in ("ours", "nnunet")]
    sizes = [statistics.mean(answer["bytes"] for answer in found[name]) / 1e6 for name in ("ours", "nnunet")]
    cpu = [statistics.median(answer["cpu"] for answer in found[name]) for name in ("ours", "nnunet")]
    whole = inputs.folder_bytes([arrays]) / 1e6 / len(list(arrays.glob("*_vol.npy")))
    return [
        ("CPU seconds per case", *(f"{value:.2f}" for value in cpu)),
        ("peak memory, MiB", *(f"{value:.0f}" for value in peaks)),
        (f"MB per case (whole .npy: {whole:.1f})", *(f"{value:.1f}" for value in sizes)),
    ]


def _share(found: dict[str, list[Answer]], part: str) -> float:
    return 1 / ratio(found, "ours", part, "cpu")


if __name__ == "__main__":
    main()

"""Random four-modality crops as float32: our stores compared with nnU-Net v2's blosc2 files and whole .npy arrays.

    python benchmarks/data_reading.py [--json]

Every method runs in its own process, one at a time, in a new order in each round; a ratio is the median over the
rounds. `ratio` is the wall time of nnU-Net's crops of 128^3 through PyTorch's loader with two workers, divided by that
of ours through `ccsd.data.PatchStream` with two workers.
"""

import json
import sys

import inputs
from measure import Answer, Peer, machine, ratio, spread, table, take_turns

SIZES = (128, 80)
CROPS = 48
SETTINGS = {"in process": ("crops", "whole"), "two workers": ("loader", "whole_loader")}


def main() -> None:
    """Measure and print."""
    options = inputs.arguments(__doc__ or "")
    stores = inputs.ours(options.work, options.cases)
    arrays = inputs.whole_arrays(options.work, stores)
    python = inputs.peer_python(options.peer_env)
    names = inputs.peer_dataset(options.work, inputs.sources(options.work, options.cases), python)
    environment = inputs.peer_environment(options.work)
    peer = Peer(python, inputs.HERE / "peer_nnunet.py", inputs.DATASET, environment=environment)
    own = Peer(sys.executable, inputs.HERE / "own_reading.py", stores, arrays)
    for name in names:
        peer.ask("convert", case=name)
    results = {}
    for size in SIZES:
        for setting, (do, whole) in SETTINGS.items():
            results[size, setting] = measure(peer, own, do, whole, size, options.rounds)
            print(f"{size}^3 {setting} done", file=sys.stderr)
    peer.close()
    own.close()
    print(f"{machine()}; {options.cases} cases of {inputs.SHAPE}, {options.rounds} rounds\n")
    print(table([HEAD, *(row(key, found) for key, found in results.items())]))
    main_result = results[128, "two workers"]
    if options.json:
        print(json.dumps({"ratio": ratio(main_result, "nnunet", "ours", "wall"), "all": summary(results)}))


def measure(peer: Peer, own: Peer, do: str, whole: str, size: int, rounds: int) -> dict[str, list[Answer]]:
    """Let the methods take turns; a loader's batch is two crops."""
    count = CROPS if do == "crops" else CROPS // 2
    actions = {
        "nnunet": lambda: peer.ask(do, size=size, count=count),
        "ours": lambda: own.ask(do, size=size, count=count),
        "npy": lambda: own.ask(whole, size=size, count=count),
        "copy": lambda: own.ask("copies", size=size, count=CROPS * 2),
    }
    return take_turns(actions, rounds)


HEAD = (
    "crop",
    "where",
    "ours, CPU ms",
    "nnU-Net / ours, wall",
    "range",
    "nnU-Net / ours, CPU",
    "npy / ours, wall",
    "npy / ours, CPU",
    "copy's speed, CPU",
)


def row(key: tuple[int, str], found: dict[str, list[Answer]]) -> tuple[str, ...]:
    """Return the table's row of one setting."""
    size, setting = key
    own_ms = sorted(answer["cpu"] for answer in found["ours"])[len(found["ours"]) // 2] / CROPS * 1000
    low, high = spread(found, "nnunet", "ours", "wall")
    return (
        f"{size}^3",
        setting,
        f"{own_ms:.1f}",
        f"{ratio(found, 'nnunet', 'ours', 'wall'):.1f}",
        f"{low:.1f} to {high:.1f}",
        f"{ratio(found, 'nnunet', 'ours', 'cpu'):.1f}",
        f"{ratio(found, 'npy', 'ours', 'wall'):.1f}",
        f"{ratio(found, 'npy', 'ours', 'cpu'):.1f}",
        f"{ratio(found, 'copy', 'ours', 'cpu') / 2:.0%}",
    )


def summary(results: dict[tuple[int, str], dict[str, list[Answer]]]) -> dict[str, float]:
    """Return every ratio to nnU-Net by setting."""
    return {
        f"{size}, {setting}, {key}": round(ratio(found, "nnunet", "ours", key), 2)
        for (size, setting), found in results.items()
        for key in ("wall", "cpu")
    }


if __name__ == "__main__":
    main()

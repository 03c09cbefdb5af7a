"""Scoring cases while the next one is segmented, compared with one step after the other, as with `--workers 1`.

    python benchmarks/evaluation.py [--cases 4] [--rounds 3] [--workers 2] [--device-s 1] [--json]

The cases are phantoms of BraTS size. The label maps of 15 combinations are the reference, moved, with pieces removed
and false positives added; they are written and scored as in `ccsd evaluate`. The segmentation is either a GPU's
stand-in, which only waits `--device-s` seconds per case, or a network on the CPUs. `ratio` is the time per case one
after the other divided by the overlapped time, with the stand-in. The last line gives the CPU time of scoring.
"""

import json
import shutil
import statistics
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import inputs
import numpy as np
import torch
from measure import Answer, cpu_seconds, machine, ratio, spread, table, take_turns, timed
from scipy import ndimage

from ccsd.config import Evaluation
from ccsd.config.schema import Model
from ccsd.data.patches import copy_with_torch
from ccsd.evaluation.finished_cases import FinishedCases
from ccsd.evaluation.pipeline import overlapped
from ccsd.evaluation.scoring import Found, Scoring
from ccsd.inference.window import predict_probabilities
from ccsd.metrics.policy import policy_of
from ccsd.metrics.regions import Labels
from ccsd.model import SharedSpecificNet
from ccsd.records import Identity
from preprocess.parallel import given_cores
from preprocess.store.reader import CaseStore, list_cases

SUBSETS = [inputs.TASK.subset(name) for name in inputs.TASK.subset_names]
HEAD = ("segmentation by", "one after the other, s per case", "overlapped, s per case", "ratio", "range")


def main() -> None:
    """Measure and print."""
    options = _arguments()
    del sys.modules[
        "__main__"
    ].__file__  # otherwise every worker would import what this script imports, above all torch
    stores = inputs.ours(options.work, options.cases)
    names = list_cases(stores)
    maps = {case: predictions(CaseStore(stores, case).read_label()) for case in names}
    net = SharedSpecificNet(Model(width=4, levels=4), inputs.TASK).eval()

    def waits(case: str, _: np.ndarray) -> Found:
        time.sleep(options.device_s)
        return found_of(maps[case])

    def computes(case: str, image: np.ndarray) -> Found:
        part = torch.from_numpy(image[:, :64, :64, :128])  # all of it would take minutes
        predict_probabilities(net, part, SUBSETS, inputs.TASK, patch=(64, 64, 64), overlap=0)
        return found_of(maps[case])

    def run(segment: object, workers: int) -> Answer:
        scoring = fresh_scoring(stores, options.work / "evaluation", names)
        work = overlapped(names, lambda case: read(stores, case), segment, scoring.score, workers)
        return timed(lambda: list(work))

    actions = {
        "gpu, in turn": lambda: run(waits, 1),
        "gpu, overlapped": lambda: run(waits, options.workers),
        "cpu, in turn": lambda: run(computes, 1),
        "cpu, overlapped": lambda: run(computes, options.workers),
    }
    found = take_turns(actions, options.rounds)
    per_case = scoring_seconds(stores, options, names, maps)
    print(f"{machine()}; {len(names)} cases, {options.rounds} rounds, {options.workers} workers\n")
    print(table([HEAD, *(row(found, kind, len(names)) for kind in ("gpu", "cpu"))]))
    print(f"\nscoring and writing: {per_case:.1f} CPU seconds per case of {len(SUBSETS)} combinations")
    if options.json:
        print(json.dumps({"ratio": ratio(found, "gpu, in turn", "gpu, overlapped", "wall"), "score_cpu_s": per_case}))


def found_of(maps: Labels) -> Found:
    """Return label maps in the form that segmentation passes on."""
    return Found(tuple(SUBSETS), maps, np.ones((len(SUBSETS), len(inputs.TASK.regions))))


def predictions(reference: Labels) -> Labels:
    """Return K label maps like those of an imperfect network: moved, with pieces removed and false positives added."""
    maps = []
    for seed in range(len(SUBSETS)):
        rng = np.random.default_rng(seed)
        labels = np.roll(reference, rng.integers(-2, 3, 3), (0, 1, 2))
        coarse = rng.random([side // 6 + 2 for side in reference.shape])
        noise = ndimage.zoom(coarse, 6.0, order=1)[tuple(slice(0, side) for side in reference.shape)]
        labels[noise < 0.25] = 0
        labels[noise > 0.93] = 2
        maps.append(labels)
    return np.stack(maps)


def read(stores: Path, case: str) -> np.ndarray:
    """Return the image of a case."""
    return CaseStore(stores, case, copy_with_torch).read_channels(inputs.MODALITIES)


def fresh_scoring(stores: Path, out: Path, names: list[str]) -> Scoring:
    """Return a scorer without finished cases."""
    shutil.rmtree(out, ignore_errors=True)
    settings, about = Evaluation(), {"experiment": "benchmark", "seed": 0, "model_hash": ""}
    finished = FinishedCases(out, Identity(cases=tuple(names)), names)
    return Scoring(stores, out, settings, policy_of(settings), inputs.TASK, about, finished)


def scoring_seconds(stores: Path, options: Namespace, names: list[str], maps: dict[str, Labels]) -> float:
    """Return the median CPU time of writing and scoring one case."""
    scoring, taken = fresh_scoring(stores, options.work / "evaluation", names), []
    for case in names:
        began = cpu_seconds()
        scoring.score(case, found_of(maps[case]))
        taken.append(cpu_seconds() - began)
    return statistics.median(taken)


def row(found: dict[str, list[Answer]], kind: str, cases: int) -> tuple[str, ...]:
    """Return the table's row of one kind of segmentation."""
    slow, fast = f"{kind}, in turn", f"{kind}, overlapped"
    low, high = spread(found, slow, fast, "wall")
    seconds = [statistics.median(answer["wall"] for answer in found[name]) / cases for name in (slow, fast)]
    name = {"gpu": "a GPU's stand-in", "cpu": "a small network on the CPUs"}[kind]
    return (name, *(f"{s:.1f}" for s in seconds), f"{ratio(found, slow, fast, 'wall'):.2f}", f"{low:.2f} to {high:.2f}")


def _arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=inputs.HERE.parent / "build/benchmarks", help="folder for inputs")
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=given_cores(), help="processes that score")
    parser.add_argument("--device-s", type=float, default=1.0, help="seconds that the stand-in takes for a case")
    parser.add_argument("--json", action="store_true", help="print one object with the ratio as the last line")
    return parser.parse_args()


if __name__ == "__main__":
    main()

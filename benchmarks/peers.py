"""Published networks compared with ours, on phantoms, for equal steps and for equal time.

    python benchmarks/peers.py --peer rfnet=../RFNet --peer mmformer=../mmFormer [--steps 100] [--patch 32] [--json]

You provide the checkouts of RFNet, mmFormer, ShaSpec or IM-Fuse (`benchmarks/peer_networks.py` has their addresses and
adapts them as plugins; none of their code is in this repository). Each is trained in our loop, on our patches, with one
set of modalities for each sample and all of its outputs supervised, as the authors of RFNet, mmFormer and IM-Fuse do;
the loss of an output, the optimizer and its rate are ours. Ours is `unet` with the method `ccsd`: once for the same
number of steps, and for each peer once more for the CPU time that the peer's steps take. All have the same cases,
patches, seed and rate, and are scored by `ccsd evaluate` on the same test cases, with one thread. The time of a step is
measured separately from the trainings, as CPU time of forward, backward and update, so that other work on the machine
has little effect.

`ratio` is the mean Dice of ours divided by that of the first peer, over all combinations and regions, for equal time.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fine_tuning import Bench
from measure import machine, table
from peer_networks import SOURCES, options
from safetensors import safe_open

from ccsd.config import Config, load_config
from ccsd.distillation.own import build_objective
from ccsd.distillation.schedule import draw_step
from ccsd.evaluation.tables import read_metrics
from preprocess.task import default_task

HERE = Path(__file__).parent
TRAIN, TEST = 24, 4
OURS = {
    "model": {"backbone": "unet", "width": 16, "levels": 5},
    "distillation": {"per_step": "all", "supervise_path": True, "weight_full": 1},
}
MEASURED = 4
"""Number of steps that are timed: DMCD scores once in as many."""
SIZE = 48
"""Voxels along the sides of the phantoms, as `Bench` creates them."""


@dataclass(frozen=True)
class Found:
    """A training and its scores."""

    name: str
    parameters: int
    steps: int
    step_s: float
    dice: dict[str, list[float]]
    """Region -> mean Dice from one modality to all."""

    @property
    def mean(self) -> float:
        """Mean over regions and numbers of modalities."""
        return sum(sum(values) / len(values) for values in self.dice.values()) / len(self.dice)

    @property
    def row(self) -> tuple[str, ...]:
        """The row in the table."""
        scores = (" / ".join(f"{value:.2f}" for value in values) for values in self.dice.values())
        cost = (
            f"{self.parameters / 1e6:.1f} M",
            f"{self.step_s:.2f}",
            str(self.steps),
            f"{self.steps * self.step_s:.0f}",
        )
        return self.name, *cost, *scores


class Comparison:
    """Trains and scores in one folder; what is finished there is not repeated."""

    def __init__(self, bench: Bench, given: argparse.Namespace) -> None:
        self.bench, self.given = bench, given
        self.cohort = bench.cohort("peers", TRAIN, TEST, 0.3, 500, list(default_task().sequences))

    def found(self, title: str, run: str, steps: int, step_s: float, sections: dict[str, Any]) -> Found:
        """Train and score one network."""
        folder = self.cohort / run
        words = [word for setting in self.settings(steps, sections) for word in ("--set", setting)]
        data = ["--data", self.cohort / "data"]
        self.bench.ccsd("train", "--config", self.cohort / "config.yaml", *data, "--run", folder, *words)
        scores = self.cohort / f"scores-{run}"
        self.bench.ccsd("evaluate", "--model", folder, *data, "--out", scores)
        return Found(title, _parameters(folder), steps, step_s, _dice(scores / "metrics.tsv"))

    def settings(self, steps: int, sections: dict[str, Any]) -> list[str]:
        """Return the settings of a training as KEY=VALUE."""
        given = self.given
        train = {"steps": steps, "validate_every": steps, "patch": [given.patch] * 3, "learning_rate": given.rate}
        pairs = {**sections, **{f"train.{key}": value for key, value in train.items()}}
        return [f"{key}={json.dumps(value)}" for key, value in pairs.items()]

    def step_s(self, sections: dict[str, Any]) -> float:
        """Return the CPU seconds of a step of one network."""
        return cpu_seconds_of_a_step(load_config(self.cohort / "config.yaml", self.settings(100, sections)))

    def rows(self) -> list[Found]:
        """Return ours for equal steps, then each peer, followed by ours for the same time."""
        steps, ours_s = self.given.steps, self.step_s(OURS)
        found = [self.found("ours, equal steps", f"ours-{steps}", steps, ours_s, OURS)]
        for name, checkout in self.given.peers.items():
            sections = {
                "model": options(name, checkout, self.given.patch),
                "distillation": {"method": "peer_networks:OneMask"},
            }
            peer_s = self.step_s(sections)
            print(f"{name}: {peer_s:.2f} CPU s per step, ours: {ours_s:.2f}", flush=True)
            found.append(self.found(name, f"{name}-{steps}", steps, peer_s, sections))
            same = max(1, round(steps * peer_s / ours_s))
            found.append(self.found(f"ours, the time of {name}", f"ours-{same}", same, ours_s, OURS))
            self.show(found)
        return found

    def show(self, found: list[Found]) -> None:
        """Print the table so far."""
        head = (
            "network",
            "parameters",
            "CPU s / step",
            "steps",
            "CPU s of steps",
            *(f"{name}, 1 to 4" for name in found[0].dice),
        )
        print(table([head, *(one.row for one in found)]), "\n", flush=True)


def _parameters(run: Path) -> int:
    with safe_open(run / "model.safetensors", framework="pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - not a mapping


def cpu_seconds_of_a_step(config: Config) -> float:
    """Return the mean CPU time of forward, backward and update of a step on noise, after a first one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    objective, train, task = build_objective(config), config.train, config.task
    optimizer = torch.optim.AdamW(objective.parameters())
    image = torch.randn(train.batch_size, len(task.modalities), *train.patch)
    label = torch.randint(0, 4, (train.batch_size, *train.patch), dtype=torch.uint8)
    available = torch.ones(image.shape[:2], dtype=torch.bool)
    for step in range(1 + MEASURED):
        if step == 1:
            began = time.process_time()
        draw = draw_step(
            config.distillation, task, available, seed=0, step=step, total_steps=100, samples=range(train.batch_size)
        )
        optimizer.zero_grad()
        objective(image, label, available, draw)["loss"].backward()
        optimizer.step()
    return (time.process_time() - began) / MEASURED


def _dice(scores: Path) -> dict[str, list[float]]:
    rows = read_metrics(scores)
    size = rows["subset"].str.count(r"\+") + 1
    means = rows.groupby([rows["region"], size])["dice"].mean()
    return {region: [float(means[region, count]) for count in sorted(set(size))] for region in default_task().regions}


def _peer(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if name not in SOURCES or not Path(path).is_dir() or not path:
        raise argparse.ArgumentTypeError(
            f"{text}: use NAME=FOLDER with the folder of a clone; names: {', '.join(SOURCES)}"
        )
    return name, Path(path)


def main() -> None:
    """Train, score and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=_peer, action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--work", type=Path, default=HERE.parent / "build/benchmarks/peers", help="folder")
    parser.add_argument("--steps", type=int, default=100, help="steps of the trainings for equal steps")
    parser.add_argument("--patch", type=int, default=32, help="side of the patches; the phantoms have 48 voxels")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of all trainings")
    parser.add_argument("--json", action="store_true", help="print one object with the ratio as the last line")
    given = parser.parse_args()
    given.peers = dict(given.peer)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    compared = Comparison(Bench(given.work, 0), given)
    print(
        f"{machine()}; {TRAIN} phantoms of {SIZE}^3 to train, {TEST} to test, two patches of {given.patch}^3 per step\n"
    )
    found = compared.rows()
    if given.json:
        print(json.dumps({"ratio": found[2].mean / found[1].mean}))


if __name__ == "__main__":
    sys.exit(main())

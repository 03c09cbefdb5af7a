"""What fine-tuning gains: thirty cases from a finished run, against the same thirty from scratch at equal steps.

    python benchmarks/fine_tuning.py [--steps 120] [--start-steps 360] [--seeds 1] [--json]

A start is trained on 60 phantoms with clear contrasts. Thirty phantoms of another kind, with little contrast and much
noise, are a hospital's own; 12 more are for testing. Then the same with a task that has a fifth sequence. All trainings
of a pair have the same settings, cases, seeds and steps; what differs is `train.init` and what belongs to it. Scored is
the mean Dice over all combinations and regions. One thread, about 15 minutes. `ratio` is the mean Dice of the fine-tuned
runs to that of the runs from scratch, four sequences.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml
from measure import machine, table

from ccsd.evaluation.tables import read_metrics
from preprocess.task import default_task

HERE = Path(__file__).parent
SETTINGS = {
    "model": {"width": 8, "levels": 4},
    "distillation": {"every_n": 4},
    "train": {
        "batch_size": 2,
        "patch": [32, 32, 32],
        "foreground": 0.7,
        "learning_rate": 2e-3,
        "warmup": 0.1,
        "precision": "fp32",
        "select": "last",
    },
    "runtime": {"workers": 0, "sinks": []},
    "evaluation": {"overlap": 0.25, "cleanup": False, "keep_predictions": False},
}
TEST, OWN, FIRST = 12, 30, 60
"""Cases for testing, of one's own, and of the start."""
Scores = "pd.Series[float]"


class Bench:
    """A folder with cohorts, trainings and their scores; what is there is not made again."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed = work, seed
        work.mkdir(parents=True, exist_ok=True)

    def ccsd(self, *words: object) -> None:
        """Run a command on one thread."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CCSD_DEVICE": "cpu", "DS_ACCELERATOR": "cpu"}
        command = [sys.executable, "-m", "ccsd", *map(str, words)]
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)

    def cohort(self, name: str, train: int, test: int, difficulty: float, seed: int, sequences: list[str]) -> Path:
        """Return converted phantoms with a split, and their task and settings beside them."""
        folder = self.work / name
        if (folder / "data/split.tsv").exists():
            return folder
        folder.mkdir(exist_ok=True)
        task = default_task().model_dump(mode="json")
        if sequences != list(task["sequences"]):
            task |= {"name": name, "sequences": {key: key.upper() for key in sequences}}
        (folder / "task.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
        option = ["--task", folder / "task.yaml"]
        count = ["--cases", train + test, "--size", 48, "--seed", seed, "--difficulty", difficulty]
        self.ccsd("phantom", folder / "phantoms", *count, *option)
        self.ccsd("convert", folder / "phantoms", folder / "data", *option)
        stores = sorted(path.stem for path in (folder / "data").glob("*.zarr"))
        parts = ["train"] * train + ["test"] * test
        rows = [f"{case}\t{part}" for case, part in zip(stores, parts, strict=True)]
        (folder / "list.tsv").write_text("case\tsplit\n" + "\n".join(rows) + "\n")
        self.ccsd("split", folder / "data", "--list", folder / "list.tsv", "--allow-torn-patients")
        config = {"name": name, "source": str(folder / "phantoms"), "task": task, **SETTINGS}
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return folder

    def run(self, cohort: Path, name: str, steps: int, **settings: object) -> Path:
        """Train one model."""
        run = cohort / f"{name}-s{self.seed}"
        given = {"steps": steps, "seed": self.seed, "validate_every": steps, **settings}
        words = [word for key, value in given.items() for word in ("--set", f"train.{key}={value}")]
        self.ccsd("train", "--config", cohort / "config.yaml", "--data", cohort / "data", "--run", run, *words)
        return run

    def scores(self, cohort: Path, run: Path) -> "pd.Series[float]":
        """Return the mean Dice of every test case, over all combinations and regions."""
        out = cohort / f"scores-{run.name}"
        self.ccsd("evaluate", "--model", run, "--data", cohort / "data", "--out", out)
        return read_metrics(out / "metrics.tsv").groupby("case")["dice"].mean()


def measured(bench: Bench, options: argparse.Namespace) -> dict[str, "pd.Series[float]"]:
    """Return the scores of every run of one seed by its name."""
    four = list(default_task().sequences)
    first = bench.cohort("first", FIRST, 0, 0.2, 100, four)
    own = bench.cohort("own", OWN, TEST, 0.8, 200, four)
    five = bench.cohort("five", OWN, TEST, 0.8, 300, [*four, "adc"])
    start = bench.run(first, "start", options.start_steps)
    found = {"4 sequences: the start as it is": bench.scores(own, start)}
    for cohort, name in ((own, "4 sequences"), (five, "5 sequences")):
        plain = bench.run(cohort, "scratch", options.steps)
        found[f"{name}: from scratch"] = bench.scores(cohort, plain)
        for rate in options.rates:
            tuned = bench.run(cohort, f"tuned-{rate:g}", options.steps, init=start, init_rate=rate)
            found[f"{name}: fine-tuned, init_rate {rate:g}"] = bench.scores(cohort, tuned)
    return found


def main() -> None:
    """Train, score and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE.parent / "build/benchmarks/fine-tuning")
    parser.add_argument("--steps", type=int, default=120, help="of the runs that are compared")
    parser.add_argument("--start-steps", type=int, default=360, help="of the start")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.3])
    parser.add_argument("--json", action="store_true", help="print one object with the ratio as the last line")
    options = parser.parse_args()
    seeds = [measured(Bench(options.work, seed), options) for seed in range(options.seeds)]
    means = {name: [float(scores[name].mean()) for scores in seeds] for name in seeds[0]}
    print(machine())
    print(
        table(
            [
                ("run", "mean Dice, by seed"),
                *((name, ", ".join(f"{m:.3f}" for m in found)) for name, found in means.items()),
            ]
        )
    )
    if options.json:
        print(json.dumps({"means": means}))


if __name__ == "__main__":
    main()

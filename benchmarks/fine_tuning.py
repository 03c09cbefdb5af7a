"""What fine-tuning gains: training on thirty cases from a finished run, and on the same from scratch, at equal steps.

    python benchmarks/fine_tuning.py [--steps 60] [--start-steps 240] [--seeds 1] [--rates 0.3] [--json]

A start is trained on 60 phantoms with clear contrasts. Thirty phantoms of another kind, with little contrast and much
noise, stand for a hospital's own cases; 12 more are for testing. Then the same is done for a task with a fifth
sequence, which the start has never seen. The trainings of a pair have the same settings, cases, seed and steps; only
`train.init` differs. The score is the mean Dice over all combinations and regions. This takes 12 CPU minutes on one
thread.

`ratio` is the mean Dice of fine-tuning divided by that from scratch, with four sequences; `ratio_of_five` is the same
with five.
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
    "model": {"backbone": "unet", "width": 8, "levels": 4},
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
"""Numbers of cases: for testing, the hospital's own, and those of the start."""


class Bench:
    """A folder with cohorts, trainings and their scores; existing ones are reused."""

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
        self.ccsd("split", folder / "data", "--list", folder / "list.tsv")
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
    """Return the Dice of every test case, by run."""
    four = list(default_task().sequences)
    first = bench.cohort("first", FIRST, 0, 0.2, 100, four)
    start = bench.run(first, "start", options.start_steps)
    found = {}
    for name, number, sequences in (("own", 200, four), ("five", 300, [*four, "adc"])):
        cohort = bench.cohort(name, OWN, TEST, 0.8, number, sequences)
        if sequences == four:
            found["own, the start as it is"] = bench.scores(cohort, start)
        found[f"{name}, from scratch"] = bench.scores(cohort, bench.run(cohort, "scratch", options.steps))
        for rate in options.rates:
            tuned = bench.run(cohort, f"tuned-{rate:g}", options.steps, init=start, init_rate=rate)
            found[f"{name}, fine-tuned, init_rate {rate:g}"] = bench.scores(cohort, tuned)
    return found


def main() -> None:
    """Train, score and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE.parent / "build/benchmarks/fine-tuning", help="folder")
    parser.add_argument("--steps", type=int, default=60, help="steps of the trainings that are compared")
    parser.add_argument("--start-steps", type=int, default=240, help="steps of the start")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.3], help="values of train.init_rate")
    parser.add_argument("--json", action="store_true", help="print one object with the ratio as the last line")
    options = parser.parse_args()
    seeds = [measured(Bench(options.work, seed), options) for seed in range(options.seeds)]
    found = {name: pd.concat([scores[name] for scores in seeds], axis=1) for name in seeds[0]}
    rows = [(name, *_row(scores, found[f"{name.split(',')[0]}, from scratch"])) for name, scores in found.items()]
    print(f"{machine()}; one thread\n")
    print(table([("run", "mean Dice, by seed", "better than from scratch"), *rows]))
    if options.json:
        ratios = [_ratio(found, name, options.rates[0]) for name in ("own", "five")]
        print(json.dumps({"ratio": ratios[0], "ratio_of_five": ratios[1]}))


def _row(scores: pd.DataFrame, scratch: pd.DataFrame) -> tuple[str, str]:
    """Return the mean of each seed, and on how many cases the mean over the seeds is better."""
    better = int((scores.mean(axis=1) > scratch.mean(axis=1)).sum())
    return ", ".join(f"{mean:.3f}" for mean in scores.mean()), f"on {better} of {len(scores)} cases"


def _ratio(found: dict[str, pd.DataFrame], name: str, rate: float) -> float:
    tuned, scratch = found[f"{name}, fine-tuned, init_rate {rate:g}"], found[f"{name}, from scratch"]
    return float(tuned.to_numpy().mean() / scratch.to_numpy().mean())


if __name__ == "__main__":
    main()

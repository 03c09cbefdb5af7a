"""Check that two versions of the code train the same, bit for bit, as a refactoring has to.

    python benchmarks/same_losses.py [--before main] [--after COMMIT] [--steps 20] [--set KEY=VALUE ...]

Without `--after` the later version is the working tree, including uncommitted changes. Both train on the same phantoms,
on one CPU thread, with the packages of this environment: each case of `CASES` from the same seed. The logged losses and
the SHA-256 of the weights are compared. The exit code is 1 if anything differs; nothing is written to the repository.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SMALL = """
name: same
phantom: {cases: 4, size: 32}
model: {width: 4, levels: 3}
train: {patch: [16, 16, 16], batch_size: 2, precision: fp32, learning_rate: 1.0e-3, validate_every: 1000}
runtime: {workers: 0, sinks: [], checkpoint_every: 1000}
"""
CASES: dict[str, tuple[str, ...]] = {
    "ccsd": (),
    "ccsd, bf16, scored at times": ("train.precision=bf16", "distillation.every_n=4"),
    "adjacent levels, deep supervision, EMA": (
        "distillation.hmsd_pairs=adjacent", "model.deep_supervision=true", "train.ema=0.9",
    ),
    "dropout, SGD, micro-batches, stage 0": (
        "distillation.method=dropout", "train.optimizer=sgd", "runtime.micro_batch=1", "runtime.zero_stage=0",
    ),
}  # fmt: skip
NOT_LEARNT = ("_s", "_mb", "tflops", "mfu", "share")
"""Suffixes of the names of logged values about time and memory."""


def main() -> None:
    """Train each case with both versions and print whether they are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="HEAD", help="commit to compare with")
    parser.add_argument("--after", help="a later commit; default: the working tree")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of all trainings")
    options = parser.parse_args()
    with TemporaryDirectory() as name, version(options.before) as before, version(options.after) as after:
        scratch = Path(name)
        (scratch / "study.yaml").write_text(SMALL, encoding="utf-8")
        for words in (
            ("phantom", "cases", "--cases", "4", "--size", "32"),
            ("convert", "cases", "data"),
            ("split", "data"),
        ):
            ccsd(before, scratch, *words)
        differing = 0
        for case, settings in CASES.items():
            sets = [f"train.steps={options.steps}", *settings, *options.set]
            old, new = (learnt(code, scratch, side, sets) for code, side in ((before, "before"), (after, "after")))
            differing += old != new
            print(f"{case}: {'the same' if old == new else f'DIFFERENT{difference(old, new)}'}", flush=True)
    sys.exit(1 if differing else 0)


@contextmanager
def version(commit: str | None) -> Iterator[Path]:
    """Yield the folder of a version of the code: the working tree, or a temporary checkout of a commit."""
    if commit is None:
        yield ROOT
        return
    with TemporaryDirectory() as name:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["tar", "x", "-C", name], input=archive.stdout, check=True)
        yield Path(name)


def ccsd(code: Path, folder: Path, *words: str) -> None:
    """Run a command of one version of the code in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(code), "CCSD_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ccsd", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{code}: ccsd {words[0]} failed\n{done.stderr[-3000:]}")


def learnt(code: Path, folder: Path, side: str, sets: list[str]) -> dict[str, Any]:
    """Train and return what must be the same: the logged losses, by step, and the hash of the weights."""
    run = folder / side
    shutil.rmtree(run, ignore_errors=True)
    words = [word for setting in sets for word in ("--set", setting)]
    ccsd(code, folder, "train", "--config", "study.yaml", "--data", "data", "--run", str(run), *words)
    events = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    found: dict[str, Any] = {
        f"step {event['step']}": {key: value for key, value in event.items() if not key.endswith(NOT_LEARNT)}
        for event in events
        if event["event"] == "train"
    }
    return {**found, "weights": json.loads((run / "run.json").read_text(encoding="utf-8"))["model_hash"]}


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return where two trainings first differ."""
    first = next(key for key in {**old, **new} if old.get(key) != new.get(key))
    return f" from {first} on:\n  before {old.get(first)}\n  after  {new.get(first)}"


if __name__ == "__main__":
    main()

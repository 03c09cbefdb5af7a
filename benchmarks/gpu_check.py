"""Measure training steps, a training and an evaluation on one GPU, in ten minutes: `make gpu-check`.

    python benchmarks/gpu_check.py [--out build/gpu-check] [--minutes 10] [--no-tests]

For each backbone, and for MONAI's DynUNet as the price of a normal network, it measures a step (forward, backward,
AdamW) of the default size: time, share of the card's peak, memory, and the kernels that take most time. Then it runs a
short training with `ccsd train`, which includes data and logging, and the evaluation of cases with all combinations
with `ccsd evaluate`, scoring included, and measures how busy the device is. Finally, in the remaining time, it runs the
tests marked `gpu`, and compiled networks. It writes gpu-check.json and gpu-check.md after each part. It reports what
failed, did not fit, or had no time left; the exit code is then 1. Nothing is downloaded: benchmarks/README.md lists
what has to be installed. `--device cpu --tiny` tries the script itself.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from gpu_commands import evaluation, training
from gpu_steps import COMPILED, PEER, SINGLY, TINY, Row, Size, add_counts, card, counted, measure
from measure import machine, table

from preprocess.parallel import given_cores

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Check, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu-check")
    parser.add_argument("--minutes", type=float, default=10, help="after which nothing new is started")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that only try the script")
    parser.add_argument("--no-tests", action="store_true", help="skip the tests marked gpu")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            f"no usable GPU: torch {torch.__version__} is for CUDA {torch.version.cuda}; see docs/how-to/training.md"
        )
    options.out = options.out.resolve()  # commands run in there
    options.out.mkdir(parents=True, exist_ok=True)
    ends, size = time.monotonic() + 60 * options.minutes, TINY if options.tiny else Size()
    device = torch.device(options.device)
    report: dict[str, Any] = {"card": card(device), "machine": machine(), "torch": torch.__version__, "steps": []}
    with ProcessPoolExecutor(2, get_context("spawn")) as counting:  # on the cores, while the device is measured
        for name, action in parts(options, device, size, ends, counting):
            found = attempt(action, ends)
            if name in {"training", "evaluation", "tests"}:
                report[name] = found
            else:
                report["steps"].append({"name": name, **found})
            print(f"{name}: {words(found)}", file=sys.stderr, flush=True)
            # After each part, because access to a GPU may end at any time.
            (options.out / "gpu-check.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            (options.out / "gpu-check.md").write_text(markdown(report, size), encoding="utf-8")
    print(markdown(report, size))
    sys.exit(
        1 if any(part.get("note") for part in [*report["steps"], *report.values()] if isinstance(part, dict)) else 0
    )


def parts(
    options: argparse.Namespace, device: torch.device, size: Size, ends: float, counting: Executor
) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    """Return what is measured, the most informative parts first."""
    kinds = ["light"] if size is TINY else ["light", PEER, "unet", "shaspec"]
    counts = {kind: counting.submit(counted, kind, size) for kind in kinds}

    def row(name: str) -> tuple[str, Callable[[], dict[str, Any]]]:
        return name, lambda: step(name, device, size, counts[name.partition(",")[0]])

    if size is TINY:  # the others take minutes on a CPU
        rows, others = [row("light")], []
    else:
        rows = [row("light"), row(PEER)]
        others = [row("unet"), row(f"light{SINGLY}"), row("shaspec"), row(f"{PEER}{COMPILED}")]
    commands = [
        ("training", lambda: training(options.out, device, size)),
        ("evaluation", lambda: evaluation(options.out, device, size)),
    ]
    tests = [] if options.no_tests else [("tests", lambda: gpu_tests(ends))]
    slowest = [] if size is TINY else [row(f"light{COMPILED}")]
    return [*rows, *commands, *others, *tests, *slowest]


def step(name: str, device: torch.device, size: Size, count: Future[tuple[float, float | None]]) -> dict[str, Any]:
    """Measure a network's step, and add what was counted meanwhile."""
    found = Row(name)
    measure(found, device, size)
    add_counts(found, *count.result(), device)
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return asdict(found)


def gpu_tests(ends: float) -> dict[str, str]:
    """Run the tests marked `gpu` until the time is over, and return pytest's closing line."""
    marked = [
        path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    left = max(1.0, ends - time.monotonic())
    # Side by side, because most of their time is spent on the host; pytest-benchmark does not like that.
    several = ["-p", "no:benchmark", "-n", str(max(1, min(8, given_cores() // 2))), "--dist", "worksteal"]
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *several, *map(str, marked)]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=left)
    print(result.stdout[-3000:], result.stderr[-1000:], sep="\n", file=sys.stderr)
    closing = (result.stdout.strip().splitlines() or ["pytest printed nothing"])[-1]
    return {"note" if result.returncode else "result": closing}


def attempt(action: Callable[[], Any], ends: float) -> dict[str, Any]:
    """Run a measurement; if it fails, return a note with the reason."""
    if time.monotonic() > ends:
        return {"note": "no time left"}
    try:
        return action() or {}
    except torch.OutOfMemoryError:
        return {"note": "out of memory"}
    except Exception as error:  # noqa: BLE001 - the other measurements continue, and the report has the error
        return {"note": f"{type(error).__name__}: {str(error)[:300]}"}


def markdown(report: dict[str, Any], size: Size) -> str:
    """Return the report as Markdown."""
    head = ("network", "step, s", "kernels, s", "TFLOP", "of the peak", "GiB", "counted", "reserved", "largest costs")
    about = ", ".join(f"{key} {value}" for key, value in report["card"].items())
    evaluated = f"cases of {' x '.join(map(str, size.case))} by `ccsd evaluate`: {words(report.get('evaluation', {}))}"
    lines = [
        f"# GPU check: {report['card']['name']}\n",
        f"{about}; torch {report['torch']}; {report['machine']}\n",
        f"Steps of {size.batch} patches of {size.patch}^3, {size.precision}, default method:\n",
        table([head, *map(cells, report["steps"])]),
        f"\nTraining by `ccsd train`: {words(report.get('training', {}))}\n",
        f"Evaluation of {evaluated}\n",
        f"Tests: {words(report.get('tests', {}))}",
    ]
    return "\n".join(lines) + "\n"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table of steps."""
    if "note" in row:
        return (row["name"], row["note"], *["-"] * 7)
    return (
        row["name"],
        number(row["step_s"], 4),
        number(row["kernels_s"], 4),
        number(row["tflop"], 1),
        f"{row['mfu']:.1%}" if row["mfu"] else "-",
        number(row["allocated_gib"], 1),
        number(row["counted_gib"], 1),
        number(row["reserved_gib"], 1),
        "; ".join(f"{share:.0%} {name}" for name, share in row["costs"]),
    )


def number(value: float | None, digits: int) -> str:
    """Return a number, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def words(values: dict[str, Any]) -> str:
    """Return names and numbers as text."""
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )


if __name__ == "__main__":
    main()

"""A training and an evaluation on one GPU, with the commands that a user runs; part of `gpu_check.py`."""

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from gpu_steps import Size, our_model, timed
from networks import TASK
from torch.profiler import ProfilerActivity, profile

from ccsd.evaluation.run import evaluate_model
from ccsd.inference.window import predict_probabilities
from ccsd.model import SharedSpecificNet
from preprocess.convert import convert
from preprocess.dataset import write_tables
from preprocess.parallel import given_cores
from preprocess.phantom.cohort import write_cohort

WORKERS = 4
LOGGED = ("step_s", "data_share", "samples_per_s", "device_share", "tflops", "mfu", "memory_mb", "memory_reserved_mb")


def training(out: Path, device: torch.device, size: Size) -> dict[str, Any]:
    """Train on phantoms with the commands that a user runs, and return what the log has about the last steps."""
    ccsd = [sys.executable, "-m", "ccsd"]
    source, stores, run = out / "phantoms", out / "stores", out / "run"
    side = max(size.patch, 48)
    config = out / "training.json"
    model = {"model": size.model} if size.model else {}
    train = {"steps": size.steps, "batch_size": size.batch, "patch": size.voxels, "validate_every": size.steps}
    train["precision"] = size.precision
    settings = {"name": "gpu", "phantom": {"cases": 4}, "train": train, **model}
    config.write_text(json.dumps(settings), encoding="utf-8")
    commands = [
        [*ccsd, "phantom", str(source), "--cases", "4", "--size", str(side)],
        [*ccsd, "convert", str(source), str(stores), "--workers", "2"],
        [*ccsd, "split", str(stores), "--train", "0.5", "--val", "0.25"],
        [*ccsd, "train", "--config", str(config), "--data", str(stores), "--run", str(run)],
    ]
    for folder in (source, stores, run):
        shutil.rmtree(folder, ignore_errors=True)
    for command in commands:
        result = subprocess.run(command, cwd=out, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError((result.stderr or result.stdout).strip()[-300:])
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [event for event in events if event["event"] == "train"][-1]
    found = {name: last[name] for name in LOGGED if name in last} | last["parts_s"]
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    if record["device"] != device.type:
        raise RuntimeError(f"trained on {record['device']}, not on {device.type}")
    return found


def evaluation(out: Path, device: torch.device, size: Size) -> dict[str, Any]:
    """Evaluate phantoms of BraTS size with the model of `training` and return seconds per case, scoring included.

    This runs once with the user's command: `case_s` is the time from one case to the next, without the start-up. It
    runs once more in this process under the profiler, to get the time in which the device works. `segment_s` is what
    the device alone needs for a case.
    """
    source, stores, run, scores = (out / name for name in ("cases", "case-stores", "run", "scores"))
    for folder in (source, stores, scores):
        shutil.rmtree(folder, ignore_errors=True)
    names = list(write_cohort(source, cases=size.cases, size=size.case[::-1], seed=0, task=TASK))
    convert(source, stores, task=TASK, workers=given_cores())
    write_tables(stores)
    rows = "".join(f"{case}\ttest\n" for case in names)
    (stores / "split.tsv").write_text(f"case\tsplit\n{rows}", encoding="utf-8")
    words = [sys.executable, "-m", "ccsd", "evaluate", "--model", run, "--data", stores, "--out", scores / "command"]
    words += ["--workers", str(WORKERS)]
    began = time.perf_counter()
    result = subprocess.run([*map(str, words)], cwd=out, capture_output=True, text=True, check=False)
    command_s = time.perf_counter() - began
    if result.returncode:
        raise RuntimeError(result.stderr.strip()[-300:])
    wanted = "cpu" if device.type == "cpu" else None
    done = sorted(max(p.stat().st_mtime for p in scores.glob(f"command/predictions/*/{n}.nii.gz")) for n in names)
    case_s = (done[-1] - done[0]) / max(1, len(done) - 1)
    with profile(activities=[ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU]) as trace:
        evaluate_model(run, stores, scores / "profiled", device=wanted)
    busy = sum(event.self_device_time_total for event in trace.key_averages()) / 1e6
    return {
        "cases": len(names),
        "combinations": len(TASK.subset_names),
        "workers": WORKERS,
        "command_s": command_s,
        "case_s": case_s,
        "segment_s": segmentation(device, size),
        **({"busy": round(busy / len(names) / case_s, 3)} if device.type == "cuda" else {}),
    }


def segmentation(device: torch.device, size: Size) -> float:
    """Return the seconds that the device alone needs for all combinations of a whole case, not cropped."""
    torch.manual_seed(0)
    net = SharedSpecificNet(our_model("light", size), TASK).to(device).eval()
    image = torch.randn(len(TASK.modalities), *size.case, device=device)
    subsets = [TASK.subset(name) for name in TASK.subset_names]

    def segment() -> None:
        predict_probabilities(net, image, subsets, TASK, patch=size.voxels, overlap=0.5, precision=size.precision)

    segment()
    return statistics.median(timed(segment, device) for _ in range(2))

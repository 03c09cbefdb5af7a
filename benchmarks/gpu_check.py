"""What one GPU does with a training step, a training and an evaluation, in ten minutes: `make gpu-check`.

    python benchmarks/gpu_check.py [--out build/gpu-check] [--minutes 10] [--no-tests]

A short training by `ccsd train`, which has data and logging in it, and the evaluation of cases with all combinations
by `ccsd evaluate`, scoring included, and how busy the device is meanwhile. Then, for each backbone, eager and compiled,
and for MONAI's DynUNet as the price of a normal network: time of a step (forward, backward, AdamW) of the default size,
share of the card's peak, memory and the kernels that take most time. At last the tests marked `gpu`, in the time that
is left. Writes gpu-check.json and gpu-check.md. What failed, does not fit, or has no time left, is said, and makes the
exit code 1. Nothing is fetched: benchmarks/README.md says what has to be installed. `--device cpu --tiny` tries the
script itself.
"""

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from counting import Step
from measure import machine, table
from networks import TASK
from networks import dynunet as peer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from ccsd.config.schema import Config, Distillation, Model
from ccsd.device import peak_tflops
from ccsd.distillation.losses import region_targets, segmentation_loss
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import Draw, draw_step
from ccsd.evaluation.run import evaluate_model
from ccsd.inference.window import predict_probabilities
from ccsd.model import SharedSpecificNet
from ccsd.training.flops import counter, step_tflop
from preprocess.convert import convert
from preprocess.dataset import write_tables
from preprocess.parallel import given_cores
from preprocess.phantom.cohort import write_cohort

CASE = (155, 240, 240)
WORKERS = 4
LOGGED = ("step_s", "data_share", "samples_per_s", "device_share", "tflops", "mfu", "memory_mb", "memory_reserved_mb")
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, eq=False)
class Size:
    """How large everything is."""

    batch: int = 2
    patch: int = 128
    rounds: int = 8
    case: tuple[int, int, int] = CASE
    cases: int = 6
    model: dict[str, Any] = field(default_factory=dict)
    steps: int = 40
    traced: int = 5

    @property
    def voxels(self) -> list[int]:
        """D, H, W of a patch."""
        return [self.patch] * 3


PEER = "DynUNet"
COMPILED, CONTIGUOUS = ", compiled", ", compiled, channels first"
"""As a training compiles by default, and without the layout that it chooses."""
TINY = Size(1, 32, 1, (40, 40, 40), 2, {"width": 4, "levels": 3}, 7, 1)


@dataclass
class Row:
    """One network in one way of running it."""

    name: str
    step_s: float | None = None
    mfu: float | None = None
    tflop: float | None = None
    counted_gib: float | None = None
    """What `counting.py` says that a step holds, without the optimizer's moments."""
    allocated_gib: float | None = None
    reserved_gib: float | None = None
    costs: list[tuple[str, float]] = field(default_factory=list)
    """Kernel, and its share of the time on the device."""
    note: str = ""


def main() -> None:
    """Check, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu-check")
    parser.add_argument("--minutes", type=float, default=10, help="after which nothing new is begun")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that only try the script")
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests marked gpu")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            f"no usable GPU: torch {torch.__version__} is built for CUDA {torch.version.cuda}; see docs/training.md"
        )
    options.out = options.out.resolve()  # commands run in there
    options.out.mkdir(parents=True, exist_ok=True)
    ends, size = time.monotonic() + 60 * options.minutes, TINY if options.tiny else Size()
    device = torch.device(options.device)
    report: dict[str, Any] = {"card": card(device), "machine": machine(), "torch": torch.__version__}
    report["training"] = attempt(lambda: training(options.out, device, size), ends)
    report["evaluation"] = attempt(lambda: evaluation(options.out, device, size), ends)
    report["steps"] = [asdict(row) for row in all_rows(device, size, ends)]
    report["tests"] = {"result": "left out"} if options.no_tests else attempt(lambda: gpu_tests(ends), ends)
    (options.out / "gpu-check.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (options.out / "gpu-check.md").write_text(markdown(report, size), encoding="utf-8")
    print(markdown(report, size))
    parts = [report["training"], report["evaluation"], report["tests"], *report["steps"]]
    sys.exit(1 if any(part.get("note") for part in parts) else 0)


def card(device: torch.device) -> dict[str, Any]:
    """Return what the device is."""
    if device.type != "cuda":
        return {"name": "CPU"}
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "gib": round(found.total_memory / 2**30, 1),
        "capability": f"{found.major}.{found.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "peak_tflops": peak_tflops(found.name),
    }


def gpu_tests(ends: float) -> dict[str, str]:
    """Run the tests marked `gpu` until the time is over, and return pytest's closing line."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
    left = max(1.0, ends - time.monotonic())
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=left)
    print(result.stdout[-3000:], result.stderr[-1000:], sep="\n", file=sys.stderr)
    said = (result.stdout.strip().splitlines() or ["pytest said nothing"])[-1]
    return {"note" if result.returncode else "result": said}


def all_rows(device: torch.device, size: Size, ends: float) -> list[Row]:
    """Measure each network, eager and compiled."""
    names = [f"{kind}{how}" for kind in ("unet", "shaspec", PEER) for how in ("", COMPILED)]
    names.insert(2, f"unet{CONTIGUOUS}")
    rows: list[Row] = []
    for name in names[:1] if size is TINY else names:  # the others take minutes on a CPU
        row = Row(name)
        rows.append(row)
        found = attempt(lambda row=row: measure(row, device, size), ends)
        row.note = found.get("note", "")
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"{name}: {row.step_s} s {row.note}", file=sys.stderr, flush=True)
    return rows


def attempt(action: Callable[[], Any], ends: float) -> dict[str, Any]:
    """Run a measurement, and say what stood in its way."""
    if time.monotonic() > ends:
        return {"note": "no time left"}
    try:
        return action() or {}
    except torch.OutOfMemoryError:
        return {"note": "out of memory"}
    except Exception as error:  # noqa: BLE001 - the other measurements go on, and the report names it
        return {"note": f"{type(error).__name__}: {str(error)[:300]}"}


def measure(row: Row, device: torch.device, size: Size) -> None:
    """Fill a row."""
    kind = row.name.partition(",")[0]
    row.tflop = counted_tflop(kind, size)
    row.counted_gib = None if kind == PEER else counted_gib(kind, size)
    step = make_step(kind, device, size, how=row.name.removeprefix(kind))
    for _ in range(3):
        step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    row.step_s = statistics.median(timed(step, device) for _ in range(size.rounds))
    if device.type == "cuda":
        row.allocated_gib = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
        row.reserved_gib = round(torch.cuda.max_memory_reserved(device) / 2**30, 2)
        peak = card(device)["peak_tflops"]
        row.mfu = round(row.tflop / row.step_s / peak, 4) if peak else None
    row.costs = largest_costs(step, device)


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of a step to its end on the device."""
    synchronise(device)
    began = time.perf_counter()
    step()
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_step(kind: str, device: torch.device, size: Size, *, how: str) -> Callable[[], None]:
    """Return a whole training step: forward and backward under bf16 autocast, and AdamW."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    image = torch.randn(size.batch, len(TASK.modalities), *size.voxels, device=device)
    label = torch.randint(0, len(TASK.classes) + 1, (size.batch, *size.voxels), device=device, dtype=torch.uint8)
    module, loss = dynunet_loss(device, image, label) if kind == PEER else our_loss(kind, device, size, image, label)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=device.type == "cuda")
    if how and isinstance(module, Objective):
        module.net.set_channels_last(how != CONTIGUOUS)
        module.compile_parts()
    elif how:
        module.compile(dynamic=False)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def our_loss(
    backbone: str, device: torch.device, size: Size, image: Tensor, label: Tensor
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return the default objective, and its loss on the batch."""
    draw, available = full_draw(size)
    net = SharedSpecificNet(our_model(backbone, size), TASK)
    objective = Objective(net, Distillation(), TASK, precision="bf16").to(device).train()
    there, drawn = available.to(device), draw.to(device)
    return objective, lambda: objective(image, label, there, drawn)["loss"]


def our_model(backbone: str, size: Size) -> Model:
    """Return the settings of a network of ours."""
    return Model.model_validate({"backbone": backbone, **(size.model if backbone == "unet" else {})})


def full_draw(size: Size) -> tuple[Draw, Tensor]:
    """Return what a step with all sequences visits, and that all are there."""
    available = torch.ones(size.batch, len(TASK.modalities), dtype=torch.bool)
    draw = draw_step(Distillation(), TASK, available, seed=0, step=0, total_steps=1, samples=range(size.batch))
    return draw, available


def dynunet_loss(device: torch.device, image: Tensor, label: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return a network that takes the sequences as channels, and its loss on the batch."""
    net, target = peer().to(device).train(), region_targets(label, TASK)

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            logits = net(image)
        return segmentation_loss(logits, target).mean()

    return net, loss


@cache
def counted_gib(kind: str, size: Size) -> float:
    """Return what a step holds at its peak, counted on tensors without contents."""
    return round(Step(our_model(kind, size), batch=size.batch, patch=size.patch).peak_gib(), 2)


@cache
def counted_tflop(kind: str, size: Size) -> float:
    """Return the 10^12 operations of forward and backward, counted on tensors without contents."""
    if kind == PEER:
        with FakeTensorMode(allow_non_fake_inputs=True):
            image = torch.zeros(size.batch, len(TASK.modalities), *size.voxels)
            label = torch.zeros(size.batch, *size.voxels, dtype=torch.uint8)
            with counter() as counted:
                segmentation_loss(peer()(image), region_targets(label, TASK)).mean().backward()
        return round(counted.get_total_flops() / 1e12, 3)
    model = our_model(kind, size).model_dump()
    train = {"patch": size.voxels, "batch_size": size.batch}
    return round(step_tflop(Config.model_validate({"name": "x", "phantom": {}, "model": model, "train": train})), 3)


def largest_costs(step: Callable[[], None], device: torch.device, number: int = 3) -> list[tuple[str, float]]:
    """Return the kernels that take most of a step's time on the device, with their shares."""
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as trace:
        step()
        synchronise(device)
    times = {
        event.key: event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        for event in trace.key_averages()
    }
    total = sum(times.values()) or 1
    largest = sorted(times.items(), key=lambda item: -item[1])[:number]
    return [(name[:90], round(took / total, 3)) for name, took in largest]


def training(out: Path, device: torch.device, size: Size) -> dict[str, Any]:
    """Train on phantoms by the commands that a user types, and return what the log says of the last steps."""
    ccsd = [sys.executable, "-m", "ccsd"]
    source, stores, run = out / "phantoms", out / "stores", out / "run"
    side = max(size.patch, 48)
    config = out / "training.json"
    model = {"model": size.model} if size.model else {}
    train = {"steps": size.steps, "batch_size": size.batch, "patch": size.voxels, "validate_every": size.steps}
    settings = {"name": "gpu", "phantom": {"cases": 4}, "train": train, "runtime": {"profile": size.traced}, **model}
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
    if device.type == "cuda":
        found["busy_share"] = kernel_share(run / "trace.json.gz")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    if record["device"] != device.type:
        raise RuntimeError(f"trained on {record['device']}, not on {device.type}")
    return found


def kernel_share(path: Path) -> float:
    """Return the share of a trace, from its first kernel to its last, in which some kernel ran."""
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") == "kernel")
    busy, end = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return float(busy / (end - spans[0][0]))


def evaluation(out: Path, device: torch.device, size: Size) -> dict[str, Any]:
    """Evaluate phantoms of BraTS's size with the model of `training` and return seconds a case, scoring included.

    Once by the command that a user types, of which `case_s` is the time from one case to the next, without the start;
    once within this process under the profiler, for the time in which the device works. `segment_s` is what the device
    alone needs for a case.
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
    net = SharedSpecificNet(our_model("unet", size), TASK).to(device).eval()
    image = torch.randn(len(TASK.modalities), *size.case, device=device)
    subsets = [TASK.subset(name) for name in TASK.subset_names]

    def segment() -> None:
        predict_probabilities(net, image, subsets, TASK, patch=size.voxels, overlap=0.5, precision="bf16")

    segment()
    return statistics.median(timed(segment, device) for _ in range(2))


def markdown(report: dict[str, Any], size: Size) -> str:
    """Return the report for people."""
    head = ("network", "step, s", "TFLOP", "of the peak", "GiB", "counted", "reserved", "largest costs")
    rows = [
        (
            row["name"],
            number(row["step_s"], 3) if row["step_s"] else row["note"] or "-",
            number(row["tflop"], 1),
            f"{row['mfu']:.1%}" if row["mfu"] else "-",
            number(row["allocated_gib"], 1),
            number(row["counted_gib"], 1),
            number(row["reserved_gib"], 1),
            "; ".join(f"{share:.0%} {name}" for name, share in row["costs"]),
        )
        for row in report["steps"]
    ]
    about = ", ".join(f"{key} {value}" for key, value in report["card"].items())
    lines = [
        f"# GPU check: {report['card']['name']}\n",
        f"{about}; torch {report['torch']}; {report['machine']}\n",
        f"Tests: {words(report['tests'])}\n",
        f"Steps of {size.batch} patches of {size.patch}^3, bf16, default method:\n",
        table([head, *rows]),
        f"\nTraining by `ccsd train`: {words(report['training'])}\n",
        f"Evaluation of cases of {' x '.join(map(str, size.case))} by `ccsd evaluate`: {words(report['evaluation'])}",
    ]
    return "\n".join(lines) + "\n"


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

"""Training steps on one GPU: their time, share of the card's peak, memory and largest costs; part of `gpu_check.py`."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import torch
from counting import Step
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
from ccsd.model import SharedSpecificNet
from ccsd.training.flops import counter, step_tflop
from ccsd.training.graphs import CudaTape, record_steps

TRAINING = Config.model_validate({"name": "x", "phantom": {}})
CASE = (155, 240, 240)
CYCLE = 2 * Distillation().every_n
"""Steps in which a training visits subsets, walks the path and scores as often as in the mean."""


@dataclass(frozen=True, eq=False)
class Size:
    """The sizes of what is measured."""

    batch: int = 2
    patch: int = 128
    rounds: int = 5
    case: tuple[int, int, int] = CASE
    cases: int = 6
    model: dict[str, Any] = field(default_factory=dict)
    steps: int = 40
    precision: str = "bf16"

    @property
    def voxels(self) -> list[int]:
        """D, H, W of a patch."""
        return [self.patch] * 3


PEER = "DynUNet"
COMPILED = ", compiled"
"""Compiled as by `runtime.compile` in a training."""
SINGLY = ", launched singly"
"""Without the recordings that a training makes by default."""
TINY = Size(1, 32, 1, (40, 40, 40), 2, {"width": 4, "levels": 3}, 7, "fp32")  # bf16 is slow on many CPUs


@dataclass
class Row:
    """One network, run in one way."""

    name: str
    step_s: float | None = None
    kernels_s: float | None = None
    """Seconds of a step in which the device works, summed over its kernels."""
    mfu: float | None = None
    tflop: float | None = None
    counted_gib: float | None = None
    """What a step holds according to `counting.py`, without the optimizer's moments."""
    allocated_gib: float | None = None
    reserved_gib: float | None = None
    costs: list[tuple[str, float]] = field(default_factory=list)
    """Kernel, and its share of the time on the device."""


def card(device: torch.device) -> dict[str, Any]:
    """Return a description of the device."""
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


def measure(row: Row, device: torch.device, size: Size) -> None:
    """Fill a row."""
    kind = row.name.partition(",")[0]
    step = make_step(kind, device, size, how=row.name.removeprefix(kind))
    if device.type == "cuda":  # before the recording, whose memory later peaks do not show
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(CYCLE):
        step()
    row.step_s = statistics.median(timed(step, device) for _ in range(size.rounds)) / CYCLE
    if device.type == "cuda":
        row.allocated_gib = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
        row.reserved_gib = round(torch.cuda.max_memory_reserved(device) / 2**30, 2)
    total, row.costs = largest_costs(step, device)
    row.kernels_s = total if device.type == "cuda" else None


def add_counts(row: Row, tflop: float, gib: float | None, device: torch.device) -> None:
    """Add what was counted, and the share of the card's peak that follows."""
    row.tflop, row.counted_gib = tflop, gib
    peak = card(device).get("peak_tflops")
    row.mfu = round(tflop / row.step_s / peak, 4) if row.step_s and peak else None


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of a cycle of steps to its end on the device."""
    synchronise(device)
    began = time.perf_counter()
    for _ in range(CYCLE):
        step()
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_step(kind: str, device: torch.device, size: Size, *, how: str) -> Callable[[], None]:
    """Return a whole training step: forward and backward, on GPUs under bf16 autocast, and AdamW."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    image = torch.randn(size.batch, len(TASK.modalities), *size.voxels, device=device)
    label = torch.randint(0, len(TASK.classes) + 1, (size.batch, *size.voxels), device=device, dtype=torch.uint8)
    module, loss = dynunet_loss(device, image, label) if kind == PEER else our_loss(kind, device, size, image, label)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=device.type == "cuda")
    if how == COMPILED and isinstance(module, Objective):
        module.compile_parts()
    elif how == COMPILED:
        module.compile(dynamic=False)
    elif not how and isinstance(module, Objective) and device.type == "cuda":
        record_steps(module, TRAINING, [size.batch], CudaTape(device))

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def our_loss(
    backbone: str, device: torch.device, size: Size, image: Tensor, label: Tensor
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return the default objective, and its loss on the batch in one step after another."""
    net = SharedSpecificNet(our_model(backbone, size), TASK)
    objective = Objective(net, Distillation(), TASK, precision=size.precision).to(device).train()
    available = torch.ones(size.batch, len(TASK.modalities), dtype=torch.bool)
    there, draws = available.to(device), cycle([draw_of(step, available).to(device) for step in range(CYCLE)])
    return objective, lambda: objective(image, label, there, next(draws))["loss"]


def our_model(backbone: str, size: Size) -> Model:
    """Return the settings of one of our networks."""
    return Model.model_validate({"backbone": backbone, **({} if backbone == "shaspec" else size.model)})


def draw_of(step: int, available: Tensor) -> Draw:
    """Return what a step of the default training visits."""
    return draw_step(
        Distillation(), TASK, available, seed=0, step=step, total_steps=CYCLE, samples=range(len(available))
    )


def dynunet_loss(device: torch.device, image: Tensor, label: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return a network that takes the sequences as channels, and its loss on the batch."""
    net, target = peer().to(device).train(), region_targets(label, TASK)

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            logits = net(image)
        return segmentation_loss(logits, target).mean()

    return net, loss


def counted(kind: str, size: Size) -> tuple[float, float | None]:
    """Return operations (in 10^12) and GiB held at the peak of a step, counted on tensors without data, in a minute."""
    if kind == PEER:
        with FakeTensorMode(allow_non_fake_inputs=True):
            image = torch.zeros(size.batch, len(TASK.modalities), *size.voxels)
            label = torch.zeros(size.batch, *size.voxels, dtype=torch.uint8)
            with counter() as found:
                segmentation_loss(peer()(image), region_targets(label, TASK)).mean().backward()
        return round(found.get_total_flops() / 1e12, 3), None
    model = our_model(kind, size)
    train = {"patch": size.voxels, "batch_size": size.batch}
    config = Config.model_validate({"name": "x", "phantom": {}, "model": model.model_dump(), "train": train})
    gib = None if kind == "shaspec" else round(Step(model, batch=size.batch, patch=size.patch).peak_gib(), 2)
    return round(step_tflop(config), 3), gib


def largest_costs(
    step: Callable[[], None], device: torch.device, number: int = 3
) -> tuple[float, list[tuple[str, float]]]:
    """Return the seconds of a step on the device, and the kernels that take most of them, with their shares."""
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as trace:
        for _ in range(CYCLE):
            step()
        synchronise(device)
    times = {
        event.key: event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        for event in trace.key_averages()
    }
    total = sum(times.values()) or 1  # microseconds
    largest = sorted(times.items(), key=lambda item: -item[1])[:number]
    return total / 1e6 / CYCLE, [(name[:90], round(took / total, 3)) for name, took in largest]

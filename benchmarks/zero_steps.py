"""What the ZeRO benchmarks share: one training step under plain DDP and under each ZeRO stage, on several processes."""

import argparse
import gc
import os
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from ccsd.config.runtime import Runtime
from ccsd.config.schema import Distillation, Model, Train
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import draw_step
from ccsd.model import SharedSpecificNet
from ccsd.training.distributed import Process, joined
from ccsd.training.engine import build_engine
from ccsd.training.zero_shards import optimizer_bytes, parameter_bytes
from preprocess.task import default_task

TASK = default_task()

DDP = "DDP"
VARIANTS = (DDP, "0", "1", "2", "3")
CLIP = 12.0


@dataclass(frozen=True)
class Stepper:
    """A training that can take steps."""

    step: Callable[[], None]
    optimizer_bytes: Callable[[], int]
    parameter_bytes: Callable[[], int]


def options(description: str | None, patch: int) -> argparse.ArgumentParser:
    """Return the options that both benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="light", choices=["light", "unet", "shaspec"])
    parser.add_argument("--width", type=int, default=16, help="unet: channels of the first level")
    parser.add_argument("--patch", type=int, default=patch, help="side of the cubic patch, one per process")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--variants", default=",".join(VARIANTS), help=f"out of {','.join(VARIANTS)}")
    parser.add_argument("--method", default="hmsd", choices=["full", "hmsd", "dmcd", "ccsd"])
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser


def launch(work: Callable[..., object], chosen: argparse.Namespace, *arguments: object) -> list[Any]:
    """Run `work(process, options, *arguments)` on every process of a new group; return the answers, by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.spawn(_one, (work, chosen, arguments, port, queue), nprocs=chosen.processes)
    return [answer for _, answer in sorted((queue.get() for _ in range(chosen.processes)), key=lambda item: item[0])]


def stepper(variant: str, chosen: argparse.Namespace, process: Process) -> Stepper:
    """Build a new network and wrap it for the variant; every process must call this."""
    torch.manual_seed(0)
    method = Distillation.model_validate({"method": chosen.method, "per_step": "all", "supervise_path": True})
    net = SharedSpecificNet(Model.model_validate({"backbone": chosen.backbone, "width": chosen.width}), TASK)
    objective = Objective(net, method, TASK).to(process.device)
    inputs = _inputs(chosen.patch, method, process)
    return _ddp(objective, inputs, process) if variant == DDP else _zero(objective, inputs, int(variant), process)


def _one(
    rank: int,
    work: Callable[..., object],
    chosen: argparse.Namespace,
    arguments: tuple[object, ...],
    port: int,
    queue: Any,
) -> None:
    world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": chosen.processes, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in world.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    warnings.filterwarnings("ignore")
    with joined() as process:
        import deepspeed  # noqa: F401 - imported here, so that its memory does not count for the variant
        import torch._dynamo  # noqa: F401

        queue.put((rank, work(process, chosen, *arguments)))


def _inputs(patch: int, method: Distillation, process: Process) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(process.rank)
    image = torch.randn(1, 4, patch, patch, patch, generator=generator).to(process.device)
    label = torch.randint(0, 4, (1, patch, patch, patch), generator=generator).to(process.device)
    available = torch.ones(1, 4, dtype=torch.bool)
    draw = draw_step(method, TASK, available, seed=0, step=0, total_steps=1, samples=[process.rank]).to(process.device)
    return image, label, available.to(process.device), draw


def _ddp(objective: Objective, inputs: tuple[Any, ...], process: Process) -> Stepper:
    devices = [process.device.index] if process.device.type == "cuda" else None
    # The objective itself keeps the running means equal.
    module: nn.Module = DistributedDataParallel(objective, devices, broadcast_buffers=False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        module(*inputs)["loss"].backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimizer.step()

    def moments() -> int:
        tensors = [value for state in optimizer.state.values() for key, value in state.items() if key != "step"]
        return sum(value.nbytes for value in tensors)

    return Stepper(step, moments, lambda: sum(p.nbytes for p in module.parameters()))


def _zero(objective: Objective, inputs: tuple[Any, ...], stage: int, process: Process) -> Stepper:
    settings = Train(batch_size=process.world, clip=CLIP)
    engine = build_engine(
        objective, settings, Runtime.model_validate({"zero_stage": stage}), process.world, process.device
    )

    def step() -> None:
        engine.backward(engine(*inputs)["loss"])
        engine.step()

    gc.collect()
    return Stepper(step, lambda: optimizer_bytes(engine), lambda: parameter_bytes(engine))


def size_of(chosen: argparse.Namespace) -> int:
    """Return the bytes of the network's float32 weights."""
    with torch.device("meta"):
        net = SharedSpecificNet(Model.model_validate({"backbone": chosen.backbone, "width": chosen.width}), TASK)
    return sum(p.numel() * 4 for p in net.parameters())


def barrier(process: Process) -> None:
    """Wait for all processes and for the device."""
    if process.device.type == "cuda":
        torch.cuda.synchronize()
    if process.world > 1:
        distributed.barrier()

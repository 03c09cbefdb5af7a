"""Build a network in DeepSpeed's engine from settings, fresh or resumed; set its learning rate, get its weights."""

import math
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ccsd.config.load import plugins_in_words
from ccsd.config.runtime import Runtime
from ccsd.config.schema import Config, Train
from ccsd.distillation.objective import Objective
from ccsd.distillation.own import PluginObjective, build_objective
from ccsd.errors import UsageError
from ccsd.model.net import SharedSpecificNet
from ccsd.study import CHECKPOINTS
from ccsd.training.average import whole_average
from ccsd.training.checkpoint import CheckpointMeta
from ccsd.training.distributed import Process
from ccsd.training.fine_tuning import FineTuning, frozen_steps
from ccsd.training.zero_shards import EMA, CheckpointFiles
from ccsd.triton import missing_for_triton

MOMENTUM = 0.99
"""Momentum of sgd, as in nnU-Net."""
ENCODERS = ("net.shared.", "net.specific.")
"""Prefixes of the weights that `train.freeze` freezes."""
SHARE, FREEZABLE = "share", "freezable"
"""Keys of a parameter group: its share of the learning rate, and whether `train.freeze` freezes it."""
BUCKET = 10_000_000
"""Elements per communication bucket. DeepSpeed's defaults would put a network of this size into one bucket."""

STAGE_OF_WEIGHTS = 3
"""The stage that shards weights too, and gathers them module by module."""
STAGE_3 = {
    "stage3_param_persistence_threshold": 10_000,
    "stage3_max_live_parameters": BUCKET,
    "stage3_max_reuse_distance": 0,
    "stage3_prefetch_bucket_size": BUCKET // 2,
    "sub_group_size": BUCKET,
}


HOST = {"device": "cpu", "pin_memory": True}
OFFLOADED = {"none": (), "optimizer": ("offload_optimizer",), "all": ("offload_optimizer", "offload_param")}
"""DeepSpeed's names for what `runtime.offload` keeps in the host's memory."""


def micro_batches(batch_size: int, world: int, micro_batch: int | None) -> tuple[int, int]:
    """Return how many micro-batches each process computes in a step, and how many samples the largest have."""
    most = -(-batch_size // world)
    size = min(micro_batch or most, most)
    return -(-most // size), size


def deepspeed_config(train: Train, runtime: Runtime, world: int, device: torch.device) -> dict[str, Any]:
    """Return the DeepSpeed configuration of a training on `world` processes, each with a device of this kind.

    DeepSpeed does not manage the precision: weights, gradients and optimizer are float32, and the objective runs its
    own autocast. Clipping is always set explicitly, because DeepSpeed clips at 1.0 by default. With stage 0 we clip
    ourselves, because DeepSpeed would update the weights with a gradient that is not finite. Micro-batches may have
    unequal sizes: the numbers given to DeepSpeed only have to be consistent.
    """
    count, size = micro_batches(train.batch_size, world, runtime.micro_batch)
    zero: dict[str, Any] = {
        "stage": runtime.zero_stage,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
        "overlap_comm": device.type == "cuda" and world > 1,  # on CPUs there is nothing to overlap with
    }
    if runtime.zero_stage == STAGE_OF_WEIGHTS:
        zero |= STAGE_3
    zero |= dict.fromkeys(OFFLOADED[runtime.offload], HOST)
    return {
        "train_batch_size": size * count * world,
        "train_micro_batch_size_per_gpu": size,
        "gradient_accumulation_steps": count,
        "gradient_clipping": train.clip if runtime.zero_stage else 0,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def build_engine(
    module: nn.Module,
    train: Train,
    runtime: Runtime,
    world: int,
    device: torch.device,
    taken: Collection[str] = (),
) -> Any:
    """Wrap a module in DeepSpeed's engine with one of torch's optimizers, whose kernels need no compiler.

    `taken` are the names of weights whose learning rate is multiplied by `train.init_rate`.

    Raises
    ------
    UsageError
        If the settings require something that this machine cannot do.
    """
    require_device(runtime)
    import deepspeed

    if device.type == "cpu":
        # It would compile C++ on the first start if there is a compiler; the program must also run without one.
        # Set before DeepSpeed tries the compiler for all of its own kernels, none of which is used here.
        vars(deepspeed.ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
    optimizer = make_optimizer(module, train, taken, fused=device.type == "cuda" and runtime.offload == "none")
    settings = deepspeed_config(train, runtime, world, device)
    with _compiling_nothing():
        engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings)
    return engine


@contextmanager
def _compiling_nothing() -> Iterator[None]:
    """Leave out torch.compile, which takes 1.4 s to import: DeepSpeed has it for an optimizer that is not used here."""
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCHDYNAMO_DISABLE"]
        else:
            os.environ["TORCHDYNAMO_DISABLE"] = before


def make_optimizer(
    module: nn.Module, train: Train, taken: Collection[str] = (), *, fused: bool
) -> torch.optim.Optimizer:
    """Return the settings' optimizer from torch; its groups carry `ema` for `ccsd.training.average`."""
    groups = parameter_groups(module, train, taken)
    if train.optimizer == "sgd":
        return torch.optim.SGD(
            groups, train.learning_rate, MOMENTUM, weight_decay=train.weight_decay, nesterov=True, fused=fused
        )
    return torch.optim.AdamW(groups, train.learning_rate, weight_decay=train.weight_decay, fused=fused)


def parameter_groups(module: nn.Module, train: Train, taken: Collection[str]) -> list[dict[str, Any]]:
    """Group the parameters by learning rate and freezing: one group, or up to four in fine-tuning."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        share = train.init_rate if name in taken else 1.0
        freezable = train.freeze > 0 and name.startswith(ENCODERS)
        groups.setdefault((share, freezable), []).append(parameter)
    return [
        {"params": parameters, EMA: train.ema, SHARE: share, FREEZABLE: freezable}
        for (share, freezable), parameters in groups.items()
    ]


def require_device(runtime: Runtime) -> None:
    """Reject offloading if there is no device to offload from."""
    if runtime.offload != "none" and not torch.cuda.is_available():
        raise UsageError(
            f"runtime.offload={runtime.offload} moves state from a GPU to the host's memory, and this process has no "
            "GPU; use runtime.offload=none"
        )


def learning_rate(step: int, settings: Train) -> float:
    """Return the rate of a step: linear warm-up, then the schedule.

    poly falls as the power 0.9 of what remains (nnU-Net's), cosine as half a cosine (Loshchilov & Hutter 2017).
    """
    warmup = settings.warmup * settings.steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    remaining = 1 - (step - warmup) / (settings.steps - warmup + 1)
    share = remaining**0.9 if settings.schedule == "poly" else (1 - math.cos(math.pi * remaining)) / 2
    return float(settings.learning_rate * share)


def set_learning_rate(engine: Any, step: int, settings: Train) -> None:
    """Set the rate of every parameter group for a step.

    A rate of 0 freezes a group. Its gradients and moments are still computed, so that the moments have the right size
    once the encoders start to learn, and every ZeRO stage does the same.
    """
    rate, is_frozen = learning_rate(step, settings), step < frozen_steps(settings)
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0 if is_frozen and group[FREEZABLE] else rate * group[SHARE]


def whole_weights(engine: Any, process: Process) -> dict[str, Tensor]:
    """Return the network's weights on the CPU, or their moving average if there is one.

    Every process must call this; sharded weights are gathered.
    """
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    network = engine.module.net
    with GatheredParameters(list(network.parameters()), enabled=engine.zero_optimization_partition_weights()):
        weights = {name: value.detach().float().cpu().clone() for name, value in network.state_dict().items()}
    averages = whole_average(engine, process)
    return {name: averages.get(f"net.{name}", value) for name, value in weights.items()}


def prepared_objective(config: Config, device: torch.device) -> Objective | PluginObjective:
    """Return the objective with a new network, seeded and prepared according to the settings.

    Raises
    ------
    UsageError
        If the settings require something that is not available here.
    """
    runtime = config.runtime
    if runtime.deterministic:
        _make_deterministic(config, device)
    torch.manual_seed(config.train.seed)
    objective = build_objective(config)
    if runtime.activation_checkpointing and isinstance(objective.net, SharedSpecificNet):
        objective.net.recompute_encoders()
    if runtime.zero_stage == STAGE_OF_WEIGHTS and isinstance(objective.net, SharedSpecificNet):
        objective.net.one_by_one = False  # the weights exist only while their own modules compute
    if runtime.compile and isinstance(objective, Objective):
        _check_compiler(device)
        objective.compile_parts()
    return objective


def _make_deterministic(config: Config, device: torch.device) -> None:
    if device.type == "cuda" and config.model.backbone == "shaspec":
        raise UsageError(
            "runtime.deterministic: torch has no deterministic max pooling and trilinear interpolation for GPUs, which "
            "model.backbone=shaspec needs; use model.backbone=light or runtime.deterministic=false"
        )
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # without it torch is not deterministic on GPUs and raises an error
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def _check_compiler(device: torch.device) -> None:
    """Raise a UsageError if torch.compile lacks what it needs to build C++ for CPUs or Triton for GPUs."""
    missing = missing_for_triton() if device.type == "cuda" else None
    if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        missing = "a C++ compiler (g++), which was not found"
    if missing:
        raise UsageError(f"runtime.compile needs {missing}; install it, or use runtime.compile=false")


def resumed_engine(
    objective: Objective | PluginObjective,
    config: Config,
    run: Path,
    checkpoint: CheckpointMeta | None,
    process: Process,
    start: FineTuning | None = None,
) -> Any:
    """Return an engine around the objective with the state of a checkpoint, or a fresh one; every process must call it.

    The weights are loaded into the module before DeepSpeed shards it, so that its shards and copies are right in every
    stage. The optimizer's state is loaded afterwards; each process reads only what it owns.
    """
    taken = {f"net.{name}" for name in start.taken} if start else set()
    build = partial(build_engine, objective, config.train, config.runtime, process.world, process.device, taken)
    if checkpoint is None:
        if start:
            start.load(objective.net)
        return build()
    with CheckpointFiles(run / CHECKPOINTS / checkpoint.tag, checkpoint.world) as files:
        files.load_weights(objective)
        engine = build()
        files.load_optimizer(engine)
    process.say(checkpoint.describe_resume(process, config.runtime.zero_stage, plugins_in_words(config)))
    return engine

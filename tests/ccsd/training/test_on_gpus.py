"""What a step does on a GPU: seen without one, where `meta` stands in for it, and on a real one (`pytest -m gpu`)."""

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ccsd.config import Config, Model
from ccsd.data import Batch
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import draw_step
from ccsd.model import SharedSpecificNet
from ccsd.training.distributed import Process
from ccsd.training.feeder import Feeder
from ccsd.training.log import StepMeans
from ccsd.training.step import LossScale, Stepper
from ccsd.training.timing import PartTimes
from support.comparing import losses, weights
from support.distilling import TERMS, every_set
from support.processes import ccsd
from support.tasks import GLIOMA

META = torch.device("meta")
AVAILABLE = torch.ones(2, 4, dtype=torch.bool)
SIDE = 32
ALIASES = {"nllloss": "nll_loss2d", "interpolate": "upsample", "grid_sample": "grid_sampler"}


class Operations(TorchDispatchMode):
    """Counts the operations by name, and those for which the host waits for the device or the device for the host."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = op._schema.name.split("::")[1], kwargs or {}
        out = op(*args, **kwargs)
        self.names[name] += 1
        tensors = [t for t in tree_leaves([args, out]) if isinstance(t, torch.Tensor) and t.dim()]
        crosses = {t.device.type for t in tensors} == {"cpu", "meta"} and not kwargs.get("non_blocking")
        if crosses or (name in {"_local_scalar_dense", "nonzero"} and args[0].device.type == "meta"):
            self.waits[name] += 1
        return out


class Indices(TorchFunctionMode):
    """Counts indices by lists, which are sent to the device one by one; the operations below do not show them."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in {torch.Tensor.__getitem__, torch.Tensor.__setitem__} and args[0].device.type == "meta":
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.waits += any(isinstance(part, list) for part in parts)
        return function(*args, **(kwargs or {}))


def one_step(method: str = "ccsd", **settings: Any) -> Operations:
    distillation = every_set(method=method)
    with META:
        objective = Objective(SharedSpecificNet(Model(width=8, levels=3, **settings), GLIOMA), distillation, GLIOMA)
        image, label = torch.zeros(2, 4, SIDE, SIDE, SIDE), torch.zeros(2, SIDE, SIDE, SIDE, dtype=torch.uint8)
    objective.to(META)  # what is made on the CPU in any case
    draw = draw_step(distillation, GLIOMA, AVAILABLE, seed=0, step=0, total_steps=9, samples=range(2)).to(META)
    with Operations() as operations:
        objective(image, label, AVAILABLE.to(META), draw)["loss"].backward()
    return operations


def rejected_operations() -> dict[str, bool]:
    """Return the operations that torch documents as not deterministic on GPUs, and whether only backwards."""
    text = str(torch.use_deterministic_algorithms.__doc__)
    text = text[text.index("operations will throw a") :]
    items = re.findall(r"\* :(?:class|func):`([\w.]+)`([^*]*)", text)
    found = {}
    for item, condition in items:
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", item.rpartition(".")[2]).lower()
        found[ALIASES.get(snake, snake)] = "differentiate" in condition
    return found


def test_the_list_of_torch_is_understood() -> None:
    rejected = rejected_operations()
    assert rejected["avg_pool3d"]
    assert rejected["adaptive_avg_pool3d"]
    assert "nll_loss2d" in rejected


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_a_step_has_only_deterministic_operations(deep_supervision: bool) -> None:
    names = one_step(deep_supervision=deep_supervision).names
    assert names["convolution_backward"] > 10
    rejected = {
        name
        for name in names
        for bad, only_backwards in rejected_operations().items()
        if name.lstrip("_").startswith(bad) and (name.endswith("backward") or not only_backwards)
    }
    assert not rejected


class Engine:
    """What a step asks of DeepSpeed's engine, whose own waits are not counted.

    Those are two more for the norm where it shards and clips, and one in the backward pass of several GPUs.
    """

    optimizer = SimpleNamespace(loss_scale=1.0)

    def __init__(self, module: Objective) -> None:
        self.module = module
        self.optimizer.param_groups = []

    def __call__(self, *args: Any) -> dict[str, torch.Tensor]:
        return self.module(*args)

    def zero_optimization_stage(self) -> int:
        return 1

    def backward(self, loss: torch.Tensor, scale_wrt_gas: bool) -> None:
        loss.backward()

    def step(self) -> None:
        pass

    def get_global_grad_norm(self) -> float:
        return 1.0  # the one wait of a step: nothing else may


MANY = 7
"""Steps among which is every kind of augmentation."""


@pytest.mark.parametrize(("method", "count"), [("ccsd", 2), ("hmsd", 2), ("dropout", MANY)])
def test_the_host_waits_for_nothing_but_the_norm_of_the_gradient(
    method: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoGenerator:  # there are none for `meta`
        def __init__(self, device: torch.device) -> None:
            pass

        def manual_seed(self, seed: int) -> None:
            pass

    monkeypatch.setattr(torch, "Generator", NoGenerator)
    config = Config.model_validate(
        {
            "name": "x",
            "phantom": {},
            "model": {"width": 8, "levels": 2},
            "distillation": {"method": method},
            "train": {"precision": "fp32", "patch": [SIDE] * 3, "batch_size": 3},
            "runtime": {"micro_batch": 2},
        }
    )
    with META:
        objective = Objective(SharedSpecificNet(config.model, GLIOMA), config.distillation, GLIOMA)
        means = StepMeans(META, GLIOMA.modalities)
    objective.to(META)
    image = torch.zeros(3, 4, SIDE, SIDE, SIDE, dtype=torch.float16)
    label = torch.zeros(3, SIDE, SIDE, SIDE, dtype=torch.uint8)
    available = torch.ones(3, 4, dtype=torch.bool)
    steps = range(count)
    batches = (Batch(step, image, label, available, ("a",) * 3, ((0, 0, 0),) * 3, (0, 1, 2)) for step in steps)
    scale = LossScale("fp32", None)
    stepper = Stepper(Engine(objective), config, Process(0, 1, META), scale, batches, PartTimes(META))
    with Operations() as operations, Indices() as indices:
        for step in steps:
            stepper.take(step, means)
    assert operations.names["convolution_backward"] > count
    for augmentation in ("grid_sampler_3d", "normal_"):
        assert operations.names[augmentation] > 0 or count < MANY
    assert not operations.waits
    assert indices.waits == 0


def test_the_next_batch_is_prepared_before_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed may wait for the device there: copies that begin afterwards would run alone."""
    order: list[str] = []
    settings = {"train": {"batch_size": 2}, "runtime": {"micro_batch": 1}}
    config = Config.model_validate({"name": "x", "phantom": {}, **settings})
    zero = torch.zeros((), requires_grad=True)
    terms = dict.fromkeys((*TERMS, "removed"), zero) | {"removed": torch.zeros(0, 1)}
    ready = SimpleNamespace(batch=None, image=None, label=None, available=None, draw=None)
    monkeypatch.setattr(Feeder, "take", lambda _: order.append("take") or ready)
    monkeypatch.setattr(Feeder, "ahead", lambda _: order.append("ahead"))
    engine = Engine(lambda *_: order.append("forward") or terms)  # type: ignore[arg-type]
    monkeypatch.setattr(Engine, "backward", lambda *_, **__: order.append("backward"))
    monkeypatch.setattr(Engine, "step", lambda _: order.append("step"))
    cpu = torch.device("cpu")
    stepper = Stepper(engine, config, Process(0, 1, cpu), LossScale("fp32", None), iter(()), PartTimes(cpu))
    stepper.take(0, StepMeans(cpu, GLIOMA.modalities))
    assert order == 2 * ["take", "forward", "ahead", "backward", "step"]


def train_on_gpu(inputs: Path, run: Path, *settings: str) -> Path:
    options = [word for setting in settings for word in ("--set", setting)]
    words = ("train", "--config", inputs / "tiny.yaml", "--data", inputs / "data", "--run", run)
    done = ccsd(*words, "--set", "runtime.compile=false", *options, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "device: cuda" in done.stdout
    return run


@pytest.mark.gpu
@pytest.mark.timeout(1200)
def test_on_a_gpu_every_stage_and_precision_learns_the_same(inputs: Path, tmp_path: Path) -> None:
    plain = losses(train_on_gpu(inputs, tmp_path / "plain", "runtime.zero_stage=0"))
    for stage in (1, 2, 3):
        run = train_on_gpu(inputs, tmp_path / str(stage), f"runtime.zero_stage={stage}", "runtime.micro_batch=1")
        assert losses(run) == pytest.approx(plain, abs=1e-3)
    for precision in ("bf16", "fp16"):
        run = train_on_gpu(inputs, tmp_path / precision, f"train.precision={precision}", "runtime.workers=1")
        assert losses(run) == pytest.approx(plain, abs=0.02)


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_on_a_gpu_deterministic_gives_the_same_bits(inputs: Path, tmp_path: Path) -> None:
    settings = ("runtime.deterministic=true", "train.precision=bf16")
    first, second = (weights(train_on_gpu(inputs, tmp_path / name, *settings)) for name in ("first", "second"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())

"""Recorded steps compute what steps launched one by one compute; on a CPU a tape that repeats the work stands in."""

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ccsd.config import Config, Model
from ccsd.config.method import Distillation
from ccsd.distillation.objective import Objective
from ccsd.distillation.schedule import Draw, draw_step
from ccsd.model import SharedSpecificNet
from ccsd.training.flops import examples
from ccsd.training.graphs import CudaTape, Tape, record_steps
from support.tasks import GLIOMA

DEVICE = torch.device(os.environ.get("CCSD_TEST_DEVICE", "cuda"))
SIDE, STEPS, SIZES = 8, 6, (2, 1)


class Repeating:
    """A tape without a device: a replay does the work again and overwrites the recorded results, as a graph does."""

    def __init__(self) -> None:
        self.recorded = 0

    def warm_up(self, work: Callable[[], None]) -> None:
        assert not self.recorded, "it would need memory beside that of the recordings"
        work()

    def record(self, work: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], Callable[[], None]]:
        found = work()
        self.recorded += 1

        def replay() -> None:
            for name, value in work().items():
                found[name].copy_(value)

        return found, replay


def objective_on(device: torch.device, settings: Distillation, **options: Any) -> Objective:
    torch.manual_seed(0)
    net = SharedSpecificNet(Model(width=4, levels=2), GLIOMA)
    return Objective(net, settings, GLIOMA, **options).to(device).train()


def config_of(settings: Distillation) -> Config:
    return Config.model_validate({"name": "x", "phantom": {}, "distillation": settings.model_dump()})


def step_of(
    settings: Distillation, step: int, device: torch.device, size: int = 2
) -> tuple[Tensor, Tensor, Tensor, Draw]:
    """Return an image, label, availability and draw that differ from step to step."""
    torch.manual_seed(step)
    image, label = torch.randn(size, 4, SIDE, SIDE, SIDE), torch.randint(0, 4, (size, SIDE, SIDE, SIDE)).byte()
    available = torch.ones(size, 4, dtype=torch.bool)
    available[0, step % 4] = False
    draw = draw_step(settings, GLIOMA, available, seed=0, step=step, total_steps=STEPS, samples=range(size))
    return image.to(device), label.to(device), available.to(device), draw.to(device)


def trained(device: torch.device, settings: Distillation, tape: Tape | None, **options: Any) -> list[dict[str, Tensor]]:
    """Take steps of two micro-batches of unequal size, recorded or not; return what each found, and its gradients."""
    objective = objective_on(device, settings, **options)
    if tape is not None:
        record_steps(objective, config_of(settings), SIZES, tape)
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-3)
    found = []
    for step in range(STEPS):
        here: dict[str, Tensor] = {}
        for size in SIZES:
            outputs = objective(*step_of(settings, step, device, size))
            outputs["loss"].backward()
            here |= {f"{size}/{name}": value.detach() for name, value in outputs.items()}
            if "scored" in outputs:
                objective.learn_criticality(outputs["scored"])
        here |= {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
        optimizer.step()
        optimizer.zero_grad()
        found.append(here)
    return found


def assert_same(first: list[dict[str, Tensor]], second: list[dict[str, Tensor]], **bounds: Any) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, **bounds)


@pytest.mark.parametrize("changed", [{}, {"per_step": "all"}, {"method": "dropout"}, {"criterion": "random"}])
def test_a_recorded_training_is_the_same(changed: dict[str, Any]) -> None:
    settings = Distillation.model_validate({"ramp": 1.0, "every_n": 2, **changed})
    cpu = torch.device("cpu")
    assert_same(trained(cpu, settings, None), trained(cpu, settings, Repeating()))


@pytest.mark.parametrize("options", [{"decode_batch": 1}, {"precision": "bf16"}])
def test_a_recorded_training_is_the_same_when_it_saves_memory(options: dict[str, Any]) -> None:
    cpu, settings = torch.device("cpu"), Distillation(ramp=1.0)
    assert_same(trained(cpu, settings, None, **options), trained(cpu, settings, Repeating(), **options))


def test_each_kind_of_step_is_recorded_once() -> None:
    tape, settings = Repeating(), Distillation(every_n=2)
    trained(torch.device("cpu"), settings, tape)
    kinds = {
        (draw.walks, draw.score, draw.from_full)
        for draw in (step_of(settings, step, torch.device("cpu"))[3] for step in range(STEPS))
    }
    assert tape.recorded == len(SIZES) * 2 * len(kinds) < len(SIZES) * 2 * STEPS  # both passes of each size


@pytest.mark.parametrize("per_step", ["one", "all"])
@pytest.mark.parametrize("method", ["full", "dropout", "hmsd", "dmcd", "ccsd"])
def test_every_kind_of_step_is_computed_before_the_first_recording(method: str, per_step: str) -> None:
    settings = Distillation.model_validate({"method": method, "per_step": per_step, "every_n": 2})
    available = torch.ones(2, 4, dtype=torch.bool)

    def kind(draw: Draw) -> tuple[object, ...]:
        of_path = (draw.score, draw.walked is not None and draw.from_full) if draw.walks else ()
        return draw.walks, of_path, tuple(value.shape for value in draw.tensors().values())

    draw = partial(draw_step, settings, GLIOMA, available, seed=0, total_steps=99, samples=range(2))
    assert {kind(draw(step=step)) for step in range(99)} <= {kind(draw) for draw in examples(config_of(settings), 2)}


def test_hooks_of_parameters_run_only_in_the_backward_pass() -> None:
    settings, calls = Distillation(), Counter[str]()
    objective = objective_on(torch.device("cpu"), settings)
    for name, parameter in objective.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: calls.update([name]))  # as DeepSpeed does
    record_steps(objective, config_of(settings), SIZES, Repeating())
    for step in range(2):
        loss = objective(*step_of(settings, step, torch.device("cpu")))["loss"]
        assert set(calls.values()) <= {step}
        loss.backward()
    assert calls == dict.fromkeys(dict(objective.named_parameters()), 2)


@pytest.mark.gpu
@pytest.mark.parametrize("changed", [{}, {"per_step": "all"}])
def test_a_gpu_replays_what_it_computes(changed: dict[str, Any]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no usable GPU")
    settings = Distillation.model_validate({"ramp": 1.0, "every_n": 2, **changed})
    with torch.backends.cudnn.flags(allow_tf32=False):
        singly, recorded = (trained(DEVICE, settings, tape) for tape in (None, CudaTape(DEVICE)))
    assert_same(singly, recorded, rtol=1e-3, atol=1e-4)

"""Times, rates and traces of steps."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ccsd.config import Config
from ccsd.device import peak_tflops
from ccsd.training.flops import Kind, counter, sample_flop, step_tflop
from ccsd.training.timing import PartTimes, StepTimes, Trace
from support.distilling import EVERY_SET

CPU = torch.device("cpu")


class Clock:
    """The events of a GPU whose clock the test moves."""

    now = 0.0
    passed = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = 0.0

    def record(self) -> None:
        self.at = Clock.now

    def query(self) -> bool:
        return self.at <= Clock.passed

    def elapsed_time(self, end: "Clock") -> float:
        return 1000 * (end.at - self.at)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    Clock.now = Clock.passed = 0.0
    monkeypatch.setattr(torch.cuda, "Event", Clock)
    return Clock


def test_a_gpu_is_timed_by_its_own_clock_and_read_when_it_has_passed(clock: type[Clock]) -> None:
    times = PartTimes(torch.device("cuda"))
    for seconds in (2.0, 3.0):
        with times.part("forward"):
            clock.now += seconds
    clock.passed = 4.0
    assert times.take() == {"forward": 2.0}
    clock.passed = 5.0
    assert times.take() == {"forward": 3.0}
    assert times.take() == {}


def test_rates_follow_from_the_steps(clock: type[Clock]) -> None:
    times = StepTimes(torch.device("cuda"), samples=4, tflop=30.0, peak_tflops=100.0)
    for name, seconds in (("forward", 0.3), ("backward", 0.5), ("copy", 9.0)):
        with times.parts.part(name):
            clock.now += seconds
    clock.passed = clock.now
    times.add(0.5)
    times.add(0.5)
    found = times.take()
    assert found["step_s"] == 0.5
    assert found["samples_per_s"] == 8
    assert found["device_share"] == pytest.approx(0.8)
    assert found["tflops"] == 60
    assert found["mfu"] == 0.6
    assert found["parts_s"] == {"forward": pytest.approx(0.15), "backward": pytest.approx(0.25), "copy": 4.5}


def test_on_a_cpu_there_are_times_alone() -> None:
    times = StepTimes(CPU, samples=4)
    with times.parts.waiting("data"), times.parts.part("forward"):
        pass
    times.add(1.0)
    found = times.take()
    assert found.keys() == {"step_s", "data_s", "data_share", "samples_per_s", "parts_s"}
    assert found["data_s"] == found["parts_s"]["data"] > 0


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
    ],
)
def test_cards_are_known_by_their_whole_name(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak


@pytest.mark.parametrize(
    "layer",
    [nn.Conv3d(8, 12, 3, padding=1), nn.Conv3d(8, 12, 3, padding=1, groups=4), nn.ConvTranspose3d(8, 6, 2, 2)],
    ids=["dense", "grouped", "transposed"],
)
def test_both_gradients_cost_what_the_forward_pass_costs(layer: nn.Module) -> None:
    x = torch.zeros(2, 8, 4, 4, 4, requires_grad=True)
    with counter() as forward:
        y = layer(x)
    with counter() as backward:
        y.sum().backward()
    assert backward.get_total_flops() == 2 * forward.get_total_flops() > 0


def config(**distillation: object) -> Config:
    return Config.model_validate(
        {
            "name": "x",
            "phantom": {},
            "model": {"width": 4, "levels": 2},
            "distillation": distillation,
            "train": {"patch": [8, 8, 8], "batch_size": 3},
        }
    )


@pytest.mark.slow
def test_a_step_costs_its_samples_and_its_share_of_scoring() -> None:
    every = config(**EVERY_SET)
    scored, plain = (sample_flop(every, Kind(1, score=score)) for score in (True, False))
    assert scored > plain > 0
    assert step_tflop(every) == pytest.approx(3 * scored / 1e12)
    assert step_tflop(config(**EVERY_SET | {"every_n": 4})) == pytest.approx(3 * (scored + 3 * plain) / 4 / 1e12)


@pytest.mark.slow
def test_a_step_with_one_subset_costs_the_mean_of_what_steps_may_visit() -> None:
    """Half of them visit a subset. The others walk; a third of these has the full set for a teacher."""
    visiting = sample_flop(config(), Kind(1, walks=False))
    walking = [sample_flop(config(every_n=1), Kind(1, score=True, from_full=full)) for full in (True, False)]
    assert visiting < walking[0] < walking[1]
    expected = 3 * (visiting + (walking[0] + 2 * walking[1]) / 3) / 2
    assert step_tflop(config(every_n=1)) == pytest.approx(expected / 1e12)
    assert step_tflop(config(method="dropout")) == pytest.approx(3 * visiting / 1e12)


@pytest.mark.parametrize(("done", "complete"), [(Trace.START + 2, True), (Trace.START + 1, False)])
def test_a_trace_names_the_parts_of_its_steps(tmp_path: Path, done: int, complete: bool) -> None:
    path, times = tmp_path / "trace.json.gz", PartTimes(CPU)
    trace = Trace(path, 2, CPU)
    finished = []
    for _ in range(done):
        with times.part("forward"):
            torch.zeros(2) + 1
        finished.append(trace.step())
    trace.close()
    assert any(finished) is complete
    spans = [event.get("name") for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]]
    assert spans.count("forward") >= done - Trace.START
    assert [item.name for item in tmp_path.iterdir()] == ["trace.json.gz"]


def test_without_the_setting_nothing_is_traced(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace.json.gz", None, CPU)
    assert not any(trace.step() for _ in range(20))
    trace.close()
    assert not list(tmp_path.iterdir())

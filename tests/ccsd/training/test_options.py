"""Optimiser, schedule and moving average: those of plain PyTorch, in every stage, and exact on resumption."""

from pathlib import Path

import pytest
import torch

from ccsd.config import load_config
from support.comparing import LOSS, WEIGHT, assert_close, assert_same_run, losses, weights
from support.plain import plain_training
from support.trainings import Ending, Launch, training

pytestmark = pytest.mark.slow
EMA = ("train.ema=0.9", "train.schedule=cosine")
SGD = ("train.optimizer=sgd", "train.learning_rate=0.003", "train.ema=0.5")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("options")


@pytest.fixture(scope="module")
def alone(launch: Launch, runs: Path) -> list[Ending]:
    items = [
        training(runs / "ema-0", *EMA, "runtime.zero_stage=0"),
        training(runs / "sgd-0", *SGD, "runtime.zero_stage=0", stop_at=3),
        training(runs / "sgd-0", *SGD, "runtime.zero_stage=0"),
        training(runs / "plain", "train.schedule=cosine"),
    ]
    return launch(*items)[0]


@pytest.fixture(scope="module")
def together(launch: Launch, runs: Path) -> list[Ending]:
    items = [
        training(runs / "ema-2", *EMA, "runtime.zero_stage=2", stop_at=2),
        training(runs / "ema-2", *EMA, "runtime.zero_stage=2"),
        training(runs / "ema-2-whole", *EMA, "runtime.zero_stage=2"),
        training(runs / "ema-3", *EMA, "runtime.zero_stage=3", stop_at=2),
        training(runs / "ema-3", *EMA, "runtime.zero_stage=1"),
        training(runs / "sgd-3", *SGD, "runtime.zero_stage=3", stop_at=2),
        training(runs / "sgd-3", *SGD, "runtime.zero_stage=3"),
    ]
    return launch(*items, world=2)[0]


def codes(endings: list[Ending]) -> list[int]:
    return [ending.code for ending in endings]


@pytest.mark.parametrize(("run", "settings"), [("ema-0", EMA), ("sgd-0", SGD)])
def test_they_are_those_of_plain_pytorch(
    run: str, settings: tuple[str, ...], alone: list[Ending], runs: Path, inputs: Path
) -> None:
    assert codes(alone) == [0, 75, 0, 0], alone
    curve, final = plain_training(load_config(inputs / "tiny.yaml", settings), inputs / "data")
    assert losses(runs / run) == pytest.approx(curve, abs=LOSS)
    assert_close(final, weights(runs / run), WEIGHT)


def test_the_average_is_the_model_and_not_the_last_weights(alone: list[Ending], runs: Path) -> None:
    assert codes(alone) == [0, 75, 0, 0]
    assert losses(runs / "ema-0") == pytest.approx(losses(runs / "plain"), abs=LOSS)  # the same training
    last, average = weights(runs / "plain"), weights(runs / "ema-0")
    assert max(float((last[name] - value).abs().max()) for name, value in average.items()) > 2 * WEIGHT


def test_shards_of_it_resume_exactly_and_in_another_stage(
    alone: list[Ending], together: list[Ending], runs: Path
) -> None:
    assert codes(together) == [75, 0, 0, 75, 0, 75, 0], together
    assert_same_run(runs / "ema-2", runs / "ema-2-whole")
    for one, other in (("ema-0", "ema-2"), ("ema-0", "ema-3"), ("sgd-0", "sgd-3")):
        assert_close(weights(runs / one), weights(runs / other), WEIGHT)
    assert all(torch.isfinite(value).all() for value in weights(runs / "sgd-3").values())

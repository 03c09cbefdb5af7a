"""Every ZeRO stage on 1, 2 and 4 processes learns what plain PyTorch learns from the same batches.

With 4 processes each has one of the 4 samples, and each sample draws subsets of its own: the processes run different
subsets in every step.
"""

from functools import cache
from pathlib import Path

import pytest
import torch

from ccsd.config import load_config
from ccsd.distillation.schedule import draw_step
from support.comparing import LOSS, WEIGHT, assert_close, losses, weights
from support.plain import plain_training
from support.trainings import Launch, training

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(3000)]

STAGES = (0, 1, 2, 3)
BF16_LOSS, BF16_WEIGHT = 2e-3, 0.05
"""bfloat16 autocast has 8 bits: the loss absolutely, the weights by the distance relative to the way they went."""


@pytest.fixture(scope="module", params=[1, 2, 4])
def together(request: pytest.FixtureRequest, launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages and precisions on a number of processes, in one launch."""
    root = tmp_path_factory.mktemp(f"world{request.param}")
    plans = [
        training(root / f"{precision}-{stage}", f"runtime.zero_stage={stage}", f"train.precision={precision}")
        for precision in ("fp32", "bf16")
        for stage in STAGES
    ]
    endings = launch(*plans, world=request.param, timeout=2400)
    assert all(ending.code == 0 for ending in endings[0]), endings[0]
    return root


@cache
def reference(inputs: Path, precision: str) -> tuple[list[float], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return losses, final and initial weights of plain PyTorch."""
    config = load_config(inputs / "tiny.yaml", [f"train.precision={precision}"])
    start = load_config(inputs / "tiny.yaml", ["train.steps=1", "train.learning_rate=1e-30"])
    return *plain_training(config, inputs / "data"), plain_training(start, inputs / "data")[1]


@pytest.mark.parametrize("stage", STAGES)
def test_float32_equals_plain_pytorch(together: Path, inputs: Path, stage: int) -> None:
    curve, final, _ = reference(inputs, "fp32")
    run = together / f"fp32-{stage}"
    assert losses(run) == pytest.approx(curve, abs=LOSS)
    assert_close(final, weights(run), WEIGHT)


@pytest.mark.parametrize("stage", STAGES)
def test_bfloat16_equals_plain_pytorch(together: Path, inputs: Path, stage: int) -> None:
    curve, final, start = reference(inputs, "bf16")
    run = together / f"bf16-{stage}"
    assert losses(run) == pytest.approx(curve, abs=BF16_LOSS)
    found = weights(run)
    way = torch.cat([(final[name] - start[name]).flatten() for name in final]).norm()
    apart = torch.cat([(final[name] - found[name]).flatten() for name in final]).norm()
    assert apart / way < BF16_WEIGHT


@pytest.mark.parametrize("stage", STAGES[1:])
def test_two_processes_carry_on_what_four_began(inputs: Path, launch: Launch, tmp_path: Path, stage: int) -> None:
    sharded = f"runtime.zero_stage={stage}"
    ((stopped,), *_) = launch(training(tmp_path, sharded, stop_at=2), world=4, timeout=600)
    assert stopped.code == 75, stopped.text
    ((resumed,), _) = launch(training(tmp_path, sharded), world=2, timeout=600)
    assert resumed.code == 0, resumed.text
    assert f"saved by 4 processes with ZeRO stage {stage}, now sharded over 2 processes" in resumed.text
    curve, final, _ = reference(inputs, "fp32")
    assert losses(tmp_path) == pytest.approx(curve, abs=LOSS)
    assert_close(final, weights(tmp_path), WEIGHT)


def test_the_samples_draw_different_subsets(inputs: Path) -> None:
    config = load_config(inputs / "tiny.yaml")
    available = torch.ones(4, 4, dtype=torch.bool)
    for step in range(config.train.steps):
        draw = draw_step(
            config.distillation, config.task, available, seed=0, step=step, total_steps=6, samples=range(4)
        )
        assert len({tuple(draw.visited[:, sample].flatten().tolist()) for sample in range(4)}) > 1

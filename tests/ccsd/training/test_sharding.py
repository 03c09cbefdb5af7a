"""Sharding is real: the bytes of moments and weights that each process holds, and offloading changes no number."""

import re
from pathlib import Path

import pytest

from ccsd.config.schema import Model
from ccsd.model import SharedSpecificNet
from support.comparing import LOSS, WEIGHT, assert_close, losses, weights
from support.tasks import GLIOMA
from support.trainings import Launch, training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

WIDTH, LEVELS = 16, 3
SIZE = ("model.width=16", "model.levels=3", "train.steps=1", "train.validate_every=9", "distillation.method=full")
FLOAT = 4
SAVING_MEMORY = ("runtime.activation_checkpointing=true", "runtime.decode_batch=1", "runtime.deterministic=true")


def test_each_process_holds_its_share(launch: Launch, tmp_path: Path) -> None:
    world = 4
    plans = [training(tmp_path / str(stage), *SIZE, f"runtime.zero_stage={stage}", measure_at=1) for stage in range(4)]
    everyone = launch(*plans, world=world, timeout=2400)
    net = SharedSpecificNet(Model(width=WIDTH, levels=LEVELS), GLIOMA)
    total = FLOAT * sum(p.numel() for p in net.parameters())
    small = FLOAT * sum(p.numel() for p in net.parameters() if p.numel() < 10_000)
    for stage in range(4):
        held = [_measured(endings[stage].text) for endings in everyone]
        moments, parameters = [pair[0] for pair in held], [pair[1] for pair in held]
        share = 1 if stage == 0 else world
        # Padding to equal parts costs a few elements of each of the parameters.
        assert max(moments) == pytest.approx(2 * total / share, rel=0.01), (stage, moments, total)
        assert sum(moments) >= 2 * total * (world if stage == 0 else 1)
        if stage < 3:
            assert parameters == [total] * world
        else:
            # Parameters below DeepSpeed's persistence threshold stay whole.
            assert max(parameters) <= (total - small) / world + small + 4096, (parameters, total, small)
            assert sum(parameters) >= total


def test_saving_memory_changes_no_number(launch: Launch, tmp_path: Path) -> None:
    """By offloading, and by computing activations again.

    DeepSpeed's offloading runs on a machine without a GPU too, where it only costs; here that serves to test it.
    """
    pairs = {"none-2": ("none", 2), "optimizer-2": ("optimizer", 2), "none-3": ("none", 3), "all-3": ("all", 3)}
    plans = [
        training(tmp_path / name, f"runtime.zero_stage={stage}", f"runtime.offload={offload}", fake_gpu=True)
        for name, (offload, stage) in pairs.items()
    ]
    plans.append(training(tmp_path / "again-3", "runtime.zero_stage=3", *SAVING_MEMORY))
    endings = launch(*plans, world=2, timeout=2400)[0]
    assert [ending.code for ending in endings] == [0] * 5, endings
    for plain, other in (("none-2", "optimizer-2"), ("none-3", "all-3"), ("none-3", "again-3")):
        assert losses(tmp_path / plain) == pytest.approx(losses(tmp_path / other), abs=LOSS)
        assert_close(weights(tmp_path / plain), weights(tmp_path / other), WEIGHT)


def test_an_offloaded_training_resumes_exactly(launch: Launch, tmp_path: Path) -> None:
    settings = ("runtime.zero_stage=3", "runtime.offload=all")
    plans = [
        training(tmp_path / "whole", *settings, fake_gpu=True),
        training(tmp_path / "parts", *settings, fake_gpu=True, stop_at=2),
        training(tmp_path / "parts", *settings, fake_gpu=True),
    ]
    endings = launch(*plans, world=2, timeout=2400)[0]
    assert [ending.code for ending in endings] == [0, 75, 0], endings
    assert_close(weights(tmp_path / "whole"), weights(tmp_path / "parts"), 0.0)


def _measured(text: str) -> tuple[int, int]:
    found = re.search(r"^bytes: (\d+) (\d+)$", text, re.MULTILINE)
    assert found, text
    return int(found[1]), int(found[2])

"""Gradients that are not finite, their norm in the log, and the loss scale of float16."""

import json
from pathlib import Path

import pytest
import torch

from ccsd.training.step import LossScale
from support.comparing import WEIGHT, assert_close, assert_same_run, losses, weights
from support.trainings import Launch, training

SMALL = ("model.width=2", "train.batch_size=2")
"""CPUs compute convolutions of float16 slowly."""
FP16 = ("train.precision=fp16", *SMALL)


@pytest.mark.slow
def test_a_broken_gradient_is_left_out_by_every_stage(launch: Launch, tmp_path: Path) -> None:
    plans = [
        training(tmp_path / str(stage), f"runtime.zero_stage={stage}", "runtime.checkpoint_every=2", nan_at=[1])
        for stage in range(4)
    ]
    plans.append(training(tmp_path / "often", "train.steps=9", nan_at=list(range(9))))
    *stages, often = launch(*plans)[0]
    for stage, ending in enumerate(stages):
        assert ending.code == 0, ending.text
        assert "step 1 was skipped: its gradient is not finite (patches above)" in ending.text
        assert "on process 0; patches: BraTS" in ending.text
        events = logged(tmp_path / str(stage))
        assert [event["skipped"] for event in events] == [0, 1, 0, 0, 0, 0]
        assert ["grad_norm" in event for event in events] == [True, False, True, True, True, True]
    norms = [
        [event["grad_norm"] for event in logged(tmp_path / str(stage)) if not event["skipped"]] for stage in range(4)
    ]
    for stage in range(1, 4):
        assert norms[stage] == pytest.approx(norms[0], rel=1e-3)
    assert_close(weights(tmp_path / "0"), weights(tmp_path / "1"), WEIGHT)
    assert_close(weights(tmp_path / "0"), weights(tmp_path / "3"), WEIGHT)
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "0").values())
    assert often.code == 1
    assert "the gradients of 5 steps in a row, the last one 4, are not finite (patches above)" in often.text
    assert not list((tmp_path / "often/checkpoints").glob("step-*"))


def logged(run: Path) -> list[dict[str, float]]:
    events = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [event for event in events if event["event"] == "train"]


def test_the_loss_scale_halves_when_it_overflows_and_grows_slowly() -> None:
    scale = LossScale("fp16", None)
    assert scale.value == LossScale.FIRST
    assert scale.update(good=False)
    assert scale.value == LossScale.FIRST / 2
    for _ in range(LossScale.GROWS_AFTER):
        scale.update(good=True)
    assert scale.value == LossScale.FIRST
    smallest = LossScale("fp16", 1.0)
    assert not smallest.update(good=False)
    assert smallest.value == 1


def test_only_float16_is_scaled() -> None:
    scale = LossScale("bf16", None)
    assert scale.value == 1
    assert not scale.update(good=False)


@pytest.mark.slow
def test_float16_learns_what_float32_learns_in_every_stage_and_resumes(launch: Launch, tmp_path: Path) -> None:
    plans = [training(tmp_path / "fp32", *SMALL)]
    plans += [training(tmp_path / str(stage), *FP16, f"runtime.zero_stage={stage}", nan_at=[]) for stage in range(4)]
    plans += [
        training(tmp_path / "whole", *FP16, nan_at=[1]),
        training(tmp_path / "parts", *FP16, nan_at=[1], stop_at=3),
        training(tmp_path / "parts", *FP16),
    ]
    endings = launch(*plans)[0]
    assert [ending.code for ending in endings] == [0] * 6 + [75, 0], endings
    for stage in range(4):
        assert losses(tmp_path / str(stage)) == pytest.approx(losses(tmp_path / "fp32"), abs=5e-3)
    assert "loss scale is now 32768" in endings[5].text
    meta = json.loads((tmp_path / "parts/checkpoints/step-00000006/checkpoint.json").read_text())
    assert (meta["loss_scale"], meta["good_steps"]) == (32768, 4)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")

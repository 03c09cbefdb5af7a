"""On one GPU: every stage, precision and option takes steps, resumes, and learns what the CPU learns.

`CCSD_TEST_DEVICE=cpu pytest -m gpu` tries the tests themselves where there is none.
"""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ccsd.config import load_config
from ccsd.config.schema import Model
from ccsd.inference.window import predict_probabilities
from ccsd.model import SharedSpecificNet
from support.comparing import losses, weights
from support.plain import plain_training
from support.tasks import GLIOMA

DEVICE = os.environ.get("CCSD_TEST_DEVICE", "cuda")
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
BF16_LOSS = 5e-2
FP32_LOSS = 2e-3
"""float32 on a GPU sums in another order; the first steps differ by rounding."""


@pytest.fixture(scope="module", autouse=True)
def device() -> str:
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("no usable GPU")
    return DEVICE


def train(inputs: Path, run: Path, *settings: str, options: tuple[str, ...] = (), code: int = 0) -> Path:
    """Train by the command line."""
    words = ["train", "--config", str(inputs / "tiny.yaml"), "--data", str(inputs / "data"), "--run", str(run)]
    settings = ("runtime.compile=false", *settings)  # what compiles says so: it takes a minute
    command = [sys.executable, "-m", "ccsd", *words, *(word for s in settings for word in ("--set", s)), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stdout[-2000:] + result.stderr[-2000:]
    return run


def device_of(run: Path) -> str:
    found: str = json.loads((run / "run.json").read_text())["device"]
    return found


@cache
def loss_of_plain_pytorch(inputs: Path) -> float:
    """Return the mean loss of plain PyTorch on the CPU in float32."""
    curve, _ = plain_training(load_config(inputs / "tiny.yaml", ["train.precision=fp32"]), inputs / "data")
    return sum(curve) / len(curve)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_stage_learns_what_the_cpu_learns(inputs: Path, tmp_path: Path, stage: int, precision: str) -> None:
    run = train(inputs, tmp_path / "run", f"runtime.zero_stage={stage}", f"train.precision={precision}")
    assert device_of(run) == DEVICE
    limit = FP32_LOSS if precision == "fp32" else BF16_LOSS
    assert losses(run) == [pytest.approx(loss_of_plain_pytorch(inputs), abs=limit)]
    assert all(torch.isfinite(value).all() for value in weights(run).values())


@pytest.mark.parametrize("option", ["compile", "activation_checkpointing", "deterministic"])
def test_options_change_nothing_but_rounding(inputs: Path, tmp_path: Path, option: str) -> None:
    first = train(inputs, tmp_path / "plain")
    second = train(inputs, tmp_path / option, f"runtime.{option}=true")
    assert losses(second)[-1] == pytest.approx(losses(first)[-1], abs=FP32_LOSS)


def test_deterministic_trainings_are_the_same_bits(inputs: Path, tmp_path: Path) -> None:
    first, second = (weights(train(inputs, tmp_path / name, "runtime.deterministic=true")) for name in "ab")
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_stopped_training_resumes_and_ends_as_an_undisturbed_one(inputs: Path, tmp_path: Path) -> None:
    whole = train(inputs, tmp_path / "whole", "runtime.deterministic=true")
    run = tmp_path / "stopped"
    train(inputs, run, "runtime.deterministic=true", options=("--stop-after", "0.001"), code=75)
    train(inputs, run, "runtime.deterministic=true")
    first, second = weights(whole), weights(run)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_case_is_segmented_as_on_the_cpu() -> None:
    torch.manual_seed(0)
    net = SharedSpecificNet(Model.model_validate({"width": 4, "levels": 2}), GLIOMA).eval()
    image = torch.randn(len(GLIOMA.modalities), 40, 36, 44)
    subsets = [GLIOMA.subset(name) for name in GLIOMA.subset_names]

    def segment(where: str) -> Tensor:
        with torch.inference_mode():
            found = predict_probabilities(
                net.to(where), image.to(where), subsets, GLIOMA, patch=(24, 24, 24), overlap=0.5, decode_batch=4
            )
        return found.cpu()

    torch.testing.assert_close(segment(DEVICE), segment("cpu"), atol=2e-2, rtol=0)

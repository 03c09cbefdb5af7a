"""Checks of a plugin in trainings on phantoms: it learns, a resumed run equals a whole one, two processes equal one.

Each training is a separate `ccsd train` on the CPU, as an author would run it.
"""

import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccsd.config import Config
from ccsd.data import PatchReader, PatchStream
from ccsd.distillation.own import build_objective
from ccsd.distillation.schedule import draw_step
from ccsd.errors import UsageError
from ccsd.model.weights import load_weights
from ccsd.plugins.outcome import Check, Outcome
from ccsd.records import read_events
from ccsd.study import CHECKPOINTS, RECORD_FILE, WEIGHTS, split_for
from preprocess.convert import convert
from preprocess.phantom.cohort import write_cohort
from preprocess.splits import make_split

CASES, LEAST_SIZE = 4, 32
CLOSE = 0.05
"""How far the weights of two processes may be from those of one, as a share of how far they moved: AdamW divides by
the size of gradients, which passes the rounding of sums on to weights whose gradients are almost 0."""
CURVE = 1e-3
BATCHES = 4
"""Batches of patches on which the loss is measured before and after the training."""
TAIL = 1500


class TrainingChecks:
    """The checks of a configuration, in their own folder; the steps are a multiple of 20."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder, self.steps = config, folder, config.train.steps

    def all(self) -> dict[str, Check]:
        """Return the checks by name, in order."""
        return {"learns": self.learns, "resumes": self.resumes, "two processes": self.two_processes}

    def learns(self) -> Outcome:
        """The loss falls."""
        self._prepare()
        self._train("whole")
        first, last = self._loss_of(self._beginning()), self._loss_of(self._weights("whole"))
        return Outcome(
            "learns", last < first, f"a lower loss on the same patches of phantoms after {self.steps} steps",
            f"{first:.4g} before, {last:.4g} after",
            "Try another --set train.learning_rate; check that gradients flow from the loss to the logits",
        )  # fmt: skip

    def resumes(self) -> Outcome:
        """A run from the checkpoint in its middle ends like the whole one."""
        whole, parts = self.folder / "whole", self.folder / "parts"
        shutil.copytree(whole, parts, ignore=shutil.ignore_patterns(RECORD_FILE, WEIGHTS))
        shutil.rmtree(parts / CHECKPOINTS / f"step-{self.steps:08d}")
        output = self._train("parts")
        if f"resuming from step {self.steps // 2}" not in output:
            raise UsageError(f"the second run did not resume from step {self.steps // 2}: {output[-TAIL:]}")
        same = (whole / WEIGHTS).read_bytes() == (parts / WEIGHTS).read_bytes()
        return Outcome(
            "resumes", same, f"after a stop at step {self.steps // 2}, the weights of an uninterrupted run",
            "them" if same else f"different ones, off by {self._apart('parts'):.2g} of the distance that they moved",
            "Keep all state in parameters and buffers; draw only from torch's generator or step.generators",
        )  # fmt: skip

    def two_processes(self) -> Outcome:
        """ZeRO stage 2 over two processes learns what one process does."""
        self._train("two", "--job", "tasks_per_node=2", "--set", "runtime.zero_stage=2")
        apart = self._apart("two")
        pairs = zip(self._losses("whole"), self._losses("two"), strict=True)
        curve = max(abs(one - two) / abs(one) for one, two in pairs)
        return Outcome(
            "two processes", apart <= CLOSE and curve <= CURVE,
            f"the loss of one process within {CURVE:g}, its weights within {CLOSE:g} of the distance that they moved",
            f"{curve:.2g} and {apart:.2g}, with ZeRO stage 2",
            "Return a mean over samples as the loss; use every weight in every step; do not wait for other processes",
        )  # fmt: skip

    def _prepare(self) -> None:
        size = max(LEAST_SIZE, *self.config.train.patch)
        source, data = self.folder / "phantoms", self.folder / "data"
        list(write_cohort(source, cases=CASES, size=size, seed=0, task=self.config.task))
        convert(source, data, task=self.config.task)
        make_split(data, train=0.5, val=0)
        raw = self.config.model_dump(mode="json")
        (self.folder / "study.yaml").write_text(json.dumps(raw), encoding="utf-8")

    def _train(self, name: str, *more: str) -> str:
        """Train and return the output.

        Raises
        ------
        UsageError
            If it failed.
        """
        folder = self.folder
        words = ["--config", folder / "study.yaml", "--data", folder / "data", "--run", folder / name, *more]
        environment = os.environ | {"CCSD_DEVICE": "cpu", "DS_ACCELERATOR": "cpu"}
        command = [sys.executable, "-m", "ccsd", "train", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise UsageError(f"ccsd train ended with {done.returncode}: {(done.stdout + done.stderr)[-TAIL:]}")
        return done.stdout

    def _losses(self, name: str) -> list[float]:
        return [event["loss"] for event in read_events(self.folder / name) if event["event"] == "train"]

    def _apart(self, name: str) -> float:
        """Return how far the weights of a run are from those of the whole one, as a share of how far these moved."""
        whole = self._weights("whole")
        return _norm(whole, self._weights(name)) / max(_norm(whole, self._beginning()), 1e-12)

    def _weights(self, name: str) -> dict[str, Tensor]:
        return load_weights(self.folder / name / WEIGHTS)[0]

    def _beginning(self) -> dict[str, Tensor]:
        torch.manual_seed(self.config.train.seed)
        return build_objective(self.config).net.state_dict()

    @torch.no_grad()
    def _loss_of(self, weights: dict[str, Tensor]) -> float:
        """Return the mean loss of the first patches with these weights."""
        config, train, data = self.config, self.config.train, self.folder / "data"
        torch.manual_seed(train.seed)
        objective: Any = build_objective(config)
        objective.net.load_state_dict(weights)
        cases = split_for(data, "check-plugin", config.task).train
        reader = PatchReader(
            data, cases, modalities=config.task.modalities, patch=train.patch, global_batch=train.batch_size, rank=0,
            world=1, seed=train.seed, foreground=train.foreground,
        )  # fmt: skip
        total, batches = 0.0, PatchStream(reader, workers=0)
        for batch in islice(batches, BATCHES):
            draw = draw_step(
                config.distillation, config.task, batch.available, seed=train.seed, step=batch.step,
                total_steps=train.steps, samples=batch.samples,
            )  # fmt: skip
            total += float(objective(batch.image.float(), batch.label, batch.available, draw)["loss"]) / BATCHES
        batches.close()
        return total


def _norm(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return float(torch.stack([(one[name].double() - other[name].double()).square().sum() for name in one]).sum().sqrt())

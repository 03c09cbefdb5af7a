"""Trainings of seconds."""

from functools import partial
from pathlib import Path

import pytest

from support.trainings import Launch, launch_trainings

CONFIG = """\
name: tiny
phantom: {cases: 6, size: 32}
model: {width: 4, levels: 2}
distillation: {every_n: 2}
train:
  steps: 6
  batch_size: 4
  patch: [16, 16, 16]
  precision: fp32
  learning_rate: 1.0e-3
  clip: 0.5
  validate_every: 3
  validate_subsets: [flair+t1+t1ce+t2, t2]
  select: last
runtime:
  checkpoint_every: 4
  workers: 0
"""


@pytest.fixture(scope="session")
def inputs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `data` and `tiny.yaml`."""
    root = tmp_path_factory.mktemp("inputs")
    (root / "data").symlink_to(data)
    (root / "tiny.yaml").write_text(CONFIG)
    return root


@pytest.fixture(scope="session")
def launch(inputs: Path) -> Launch:
    """Run trainings one after the other in one launch of `world` processes; returns endings, by process."""
    return partial(launch_trainings, inputs)

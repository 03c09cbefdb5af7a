"""Means of the loss terms and shares of the removal paths."""

import pytest
import torch

from ccsd.training.distributed import Process
from ccsd.training.log import TERMS, StepMeans

ALONE = Process(0, 1, torch.device("cpu"))


def outputs(loss: float, removed: list[list[int]]) -> dict[str, torch.Tensor]:
    terms = {name: torch.tensor(loss) for name in TERMS}
    return {**terms, "removed": torch.tensor(removed).T if removed else torch.empty(0, 2, dtype=torch.long)}


def test_means_and_shares() -> None:
    tally = StepMeans(ALONE.device)
    tally.add(outputs(1.0, [[2, 0, 3], [2, 3, 0]]))
    tally.add(outputs(3.0, [[2, 0, 3], [0, -1, -1]]))
    terms, removal = tally.take(ALONE)
    assert terms == pytest.approx(dict.fromkeys(TERMS, 2.0))
    assert removal["first"] == {"flair": 0.25, "t1": 0, "t1ce": 0.75, "t2": 0}
    assert removal["paths"] == {"t1ce>flair>t2": 0.5, "flair": 0.25, "t1ce>t2>flair": 0.25}


def test_taking_starts_anew_and_methods_without_a_path_have_none() -> None:
    tally = StepMeans(ALONE.device)
    tally.add(outputs(1.0, [[2, 0, 3], [2, 3, 0]]))
    tally.take(ALONE)
    tally.add(outputs(5.0, []))
    terms, removal = tally.take(ALONE)
    assert terms["loss"] == 5.0
    assert removal == {}

"""Validation during training, of cases that lack sequences."""

from pathlib import Path

import pytest
import torch

from ccsd.config import Config, load_config
from ccsd.errors import UsageError
from ccsd.training import validate as module
from ccsd.training.distributed import Process
from ccsd.training.validate import check_validation, validate
from preprocess.splits import read_split
from preprocess.store.reader import CaseStore

ALONE = Process(0, 1, torch.device("cpu"))


@pytest.fixture
def config(inputs: Path) -> Config:
    """Validates with all sequences and with T2."""
    return load_config(inputs / "tiny.yaml")


@pytest.fixture
def cases(data: Path) -> tuple[str, ...]:
    return read_split(data).val


def test_combinations_that_no_case_has_do_not_lower_the_mean(
    config: Config, data: Path, cases: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CaseStore, "modalities", ("t1", "t2"))
    monkeypatch.setattr(module, "_inference_copy", lambda *_: None)
    monkeypatch.setattr(module, "_picture", lambda *_: None)
    everything = lambda _net, _config, store, subsets, _device: torch.ones(  # noqa: E731
        len(subsets), 3, *store.read_label().shape, dtype=torch.bool
    )
    monkeypatch.setattr(module, "_predict", everything)
    found = validate(None, config, data, cases, ALONE, lambda: False)
    assert found is not None
    assert list(found.dice) == ["t2"]
    assert found.mean == pytest.approx(sum(found.dice["t2"].values()) / 3)
    assert found.mean > 0


def test_cases_that_cannot_be_validated_are_rejected_before_the_first_step(
    config: Config, data: Path, cases: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_validation(config, data, cases)
    check_validation(config, data, ())
    monkeypatch.setattr(CaseStore, "modalities", ("flair", "t1"))
    with pytest.raises(
        UsageError, match=r"no validation case .* any of flair\+t1\+t1ce\+t2, t2; .* such as flair\+t1$"
    ):
        check_validation(config, data, cases)

"""What a training records: metrics.jsonl and its sinks, means of the loss terms, shares of the removal paths."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ccsd.errors import UsageError
from ccsd.records import read_events
from ccsd.training import sinks
from ccsd.training.distributed import Process
from ccsd.training.log import StepMeans, TrainingLog
from support.distilling import TERMS
from support.tasks import GLIOMA

ALONE = Process(0, 1, torch.device("cpu"))


def test_events_survive_and_later_ones_are_forgotten(tmp_path: Path) -> None:
    record = TrainingLog(tmp_path, 0, 20)
    for step in (5, 10, 15):
        record.add("train", step, loss=1 / step, nested={"a": {"b": 2.0}})
    record.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "st')
    again = TrainingLog(tmp_path, 10, 20)
    again.add("train", 12, loss=0.5)
    again.close()
    assert [event["step"] for event in read_events(tmp_path)] == [5, 10, 12]


def test_a_sink_that_fails_is_named_once_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, run: Path, start: int) -> None:
            pass

        def scalars(self, values: object, step: int) -> None:
            raise ConnectionError("no route to host")

    monkeypatch.setitem(sinks.SINKS, "wandb", Broken)
    record = TrainingLog(tmp_path, 0, 20, ["wandb", "tensorboard"])
    for step in (1, 2):
        record.add("train", step, loss=1.0)
    record.close()
    said = capsys.readouterr().out
    assert said == "wandb failed (no route to host); logging to it is disabled; metrics.jsonl is complete\n"
    assert len(read_events(tmp_path)) == 2
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_missing_package_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "find_spec", lambda name: None if name == "mlflow" else name)
    sinks.check_installed(["tensorboard", "wandb"])
    with pytest.raises(UsageError, match="mlflow is not installed; install it with `pip install mlflow`"):
        sinks.check_installed(["tensorboard", "mlflow"])


def test_pictures_are_kept_and_shown(tmp_path: Path) -> None:
    record = TrainingLog(tmp_path, 0, 20, ["tensorboard"])
    record.picture(5, np.zeros((4, 6, 3), np.uint8))
    record.close()
    assert (tmp_path / "overlays" / "step-00000005.png").read_bytes().startswith(b"\x89PNG")
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"validation/overlay" in events.read_bytes()


def test_a_log_gets_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = TrainingLog(tmp_path, 0, 20)
    record.progress(1, 0.5, 60.0)
    record.progress(2, 0.4, 60.0)
    record.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["step 1/20  loss 0.500  60.00 s/step  0:19:00 left"]


def outputs(loss: float, removed: list[list[int]]) -> dict[str, torch.Tensor]:
    terms = {name: torch.tensor(loss) for name in TERMS}
    return {**terms, "removed": torch.tensor(removed).T if removed else torch.empty(0, 2, dtype=torch.long)}


def test_means_and_shares() -> None:
    tally = StepMeans(ALONE.device, GLIOMA.modalities)
    tally.add(outputs(1.0, [[2, 0, 3], [2, 3, 0]]))
    tally.add(outputs(3.0, [[2, 0, 3], [0, -1, -1]]))
    terms, removal = tally.take(ALONE)
    assert terms == pytest.approx(dict.fromkeys(TERMS, 2.0))
    assert removal["first"] == {"flair": 0.25, "t1": 0, "t1ce": 0.75, "t2": 0}
    assert removal["paths"] == {"t1ce>flair>t2": 0.5, "flair": 0.25, "t1ce>t2>flair": 0.25}


def test_taking_starts_anew_and_methods_without_a_path_have_none() -> None:
    tally = StepMeans(ALONE.device, GLIOMA.modalities)
    tally.add(outputs(1.0, [[2, 0, 3], [2, 3, 0]]))
    tally.take(ALONE)
    tally.add(outputs(5.0, []))
    terms, removal = tally.take(ALONE)
    assert terms["loss"] == 5.0
    assert removal == {}

"""Fine-tuning as it runs: under every stage, stopped and resumed, and what it leaves."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ccsd.config import load_config
from ccsd.model import load_model
from ccsd.records import RunRecord, read_events
from preprocess.convert import convert
from preprocess.dataset import read_fingerprint
from preprocess.phantom.cohort import write_cohort
from preprocess.splits import make_split
from support.comparing import LOSS, WEIGHT, assert_close, assert_same_run, losses, weights
from support.plain import plain_training
from support.runs import write_run
from support.tasks import FIVE
from support.trainings import Ending, Launch, launch_trainings, training

pytestmark = pytest.mark.slow

SETTINGS = ("train.freeze=0.5", "train.init_rate=0.25")
STILL = 3
"""Of the six steps."""


@pytest.fixture(scope="module")
def runs(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with two starts, the second one trained on other cases of the same data."""
    root, config = tmp_path_factory.mktemp("fine-tuning"), load_config(inputs / "tiny.yaml")
    write_run(root / "start", config, data_hash="other data")
    same = read_fingerprint(inputs / "data")["data_hash"]
    write_run(root / "leaky", config, data_hash=same, split_hash="another")
    return root


def settings_of(runs: Path, *more: str) -> tuple[str, ...]:
    return (f"train.init={runs / 'start'}", *SETTINGS, *more)


@pytest.fixture(scope="module")
def alone(launch: Launch, runs: Path) -> list[Ending]:
    given = settings_of(runs, "runtime.keep_last=9", "runtime.checkpoint_every=1")
    items = [
        training(runs / "whole", *given),
        training(runs / "parts", *given, stop_at=2),
        training(runs / "parts", *given),
        training(runs / "whole", *given),
        training(runs / "killed", *settings_of(runs), kill_at=1),
        training(runs / "killed", *settings_of(runs)),
        training(runs / "leaked", f"train.init={runs / 'leaky'}", "train.steps=1"),
    ]
    return launch(*items)[0]


@pytest.fixture(scope="module")
def together(launch: Launch, runs: Path) -> list[Ending]:
    stage = "runtime.zero_stage={}".format
    items = [
        training(runs / "stage-0", *settings_of(runs, stage(0))),
        training(runs / "stage-2", *settings_of(runs, stage(2)), stop_at=2),
        training(runs / "stage-2", *settings_of(runs, stage(3)), stop_at=4),
        training(runs / "stage-2", *settings_of(runs, stage(1))),
        training(runs / "stage-3", *settings_of(runs, stage(3))),
        training(runs / "sgd-0", *settings_of(runs, stage(0), "train.optimizer=sgd", "train.ema=0.9")),
        training(runs / "sgd-3", *settings_of(runs, stage(3), "train.optimizer=sgd", "train.ema=0.9")),
    ]
    return launch(*items, world=2)[0]


def encoders(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if name.startswith(("shared.", "specific."))}


def saved(run: Path, step: int) -> dict[str, Tensor]:
    """Return the weights in the checkpoint of a process alone."""
    (part,) = run.glob(f"checkpoints/step-{step:08d}/part-*.safetensors")
    prefix = "weight/net."
    return {name.removeprefix(prefix): v for name, v in load_file(part).items() if name.startswith(prefix)}


def test_it_is_a_run_like_any_other_and_resumes_exactly(alone: list[Ending], runs: Path) -> None:
    assert [ending.code for ending in alone] == [0, 75, 0, 0, -9, 0, 0], alone
    assert_same_run(runs / "whole", runs / "parts")
    assert "already trained with this configuration" in alone[3].text
    assert load_model(runs / "whole").record.start is not None


def test_the_user_is_told_once_and_the_run_remembers(alone: list[Ending], runs: Path) -> None:
    record, start = RunRecord.read(runs / "whole"), RunRecord.read(runs / "start")
    assert record.start is not None
    assert (record.start.model_hash, record.start.run) == (start.model_hash, str(runs / "start"))
    for ending, number in zip(alone, (1, 1, 0, 0), strict=False):
        assert ending.text.count(f"fine-tuning from {runs / 'start'} (model {start.model_hash[:12]}") == number
        assert ending.text.count("  skipped: nothing\n") == number
        assert ending.text.count(f"the encoders are frozen in the first {STILL} steps") == number
        assert "was trained with another split" not in ending.text
    for run in ("parts", "killed"):
        (event,) = [event for event in read_events(runs / run) if event["event"] == "start"]
        assert set(event["taken"]) == weights(runs / "start").keys()


def test_encoders_stand_still_as_long_as_asked_and_the_rest_moves_at_once(alone: list[Ending], runs: Path) -> None:
    before = weights(runs / "start")
    for step in range(1, 7):
        now = saved(runs / "whole", step)
        moved = {name for name, value in now.items() if not torch.equal(value, before[name].flatten())}
        assert "decoder.head.weight" in moved, step
        assert "fuse.weight" in moved, step
        expected = set() if step <= STILL else encoders(before).keys()
        assert moved & encoders(before).keys() == expected, step


def test_it_is_that_of_plain_pytorch(alone: list[Ending], runs: Path, inputs: Path) -> None:
    config = load_config(inputs / "tiny.yaml", settings_of(runs))
    curve, final = plain_training(config, inputs / "data", load_model(runs / "start").net)
    assert losses(runs / "whole") == pytest.approx(curve, abs=LOSS)
    assert_close(final, weights(runs / "whole"), WEIGHT)


def test_a_start_from_another_split_of_the_same_data_is_told(alone: list[Ending], runs: Path) -> None:
    assert "note: the start was trained with another split of the same data" in alone[6].text
    assert RunRecord.read(runs / "leaked").may_know_test_cases


def test_every_stage_on_two_processes_does_the_same(alone: list[Ending], together: list[Ending], runs: Path) -> None:
    assert [ending.code for ending in together] == [0, 75, 75, 0, 0, 0, 0], together
    for run in ("stage-0", "stage-2", "stage-3"):
        assert losses(runs / run) == pytest.approx(losses(runs / "whole"), abs=LOSS)
        assert_close(weights(runs / "whole"), weights(runs / run), WEIGHT)
    assert_close(weights(runs / "sgd-0"), weights(runs / "sgd-3"), WEIGHT)


@pytest.mark.parametrize("stage", [0, 3])
def test_a_run_of_four_sequences_becomes_one_of_five(runs: Path, inputs: Path, tmp_path: Path, stage: int) -> None:
    list(write_cohort(tmp_path / "cohort", cases=6, size=32, seed=1, task=FIVE))
    convert(tmp_path / "cohort", tmp_path / "data", task=FIVE)
    make_split(tmp_path / "data", val=0.2)
    config = load_config(inputs / "tiny.yaml", [f"task={json.dumps(FIVE.model_dump(mode='json'))}"])
    (tmp_path / "tiny.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    run = tmp_path / "five"
    given = (f"train.init={runs / 'start'}", "train.freeze=1", f"runtime.zero_stage={stage}")
    ((stopped, ended),) = launch_trainings(tmp_path, training(run, *given, stop_at=2), training(run, *given))
    assert (stopped.code, ended.code) == (75, 0), stopped.text + ended.text
    assert "new: the specific encoders of adc (the mean of those of the start" in stopped.text
    before, after = weights(runs / "start"), weights(run)
    for name, value in encoders(before).items():
        kept = torch.cat([*after[name].chunk(5)][:4]) if name.startswith("specific") else after[name]
        assert torch.equal(kept, value), name
    assert not torch.equal(after["decoder.head.weight"], before["decoder.head.weight"])
    assert load_model(run).config.task.modalities[-1] == "adc"

"""The global batch, cut into micro-batches and processes in any way, gives the same weights to rounding."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ccsd.config import load_config
from ccsd.distillation.path import RunningCriticality
from ccsd.training.engine import micro_batches
from ccsd.training.step import Part, parts_of
from support.comparing import LOSS, WEIGHT, assert_close, losses, weights
from support.plain import plain_training
from support.trainings import Launch, training

ROOT = Path(__file__).parents[3]
BATCH_3 = "train.batch_size=3"
ONE = ("distillation.per_step=one", "distillation.supervise_path=false")


@pytest.mark.parametrize("micro", [None, 1, 2, 3, 9])
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_every_sample_counts_once_and_all_processes_compute_as_often(batch: int, world: int, micro: int | None) -> None:
    everyone = [parts_of(rank, world, batch, micro) for rank in range(world)]
    count, size = micro_batches(batch, world, micro)
    assert {len(parts) for parts in everyone} == {count}
    sizes = [part.rows.stop - part.rows.start for parts in everyone for part in parts]
    assert max(sizes) == size
    assert min(sizes) >= 1
    counted = [part for parts in everyone for part in parts if part.weight]
    assert sum(part.rows.stop - part.rows.start for part in counted) == batch
    # The mean over processes of weight times mean over samples is the mean over the batch.
    for part in counted:
        assert part.weight / world / (part.rows.stop - part.rows.start) == pytest.approx(1 / batch)


def test_equal_shares_have_a_weight_that_changes_no_bit() -> None:
    assert parts_of(1, 4, 8, None) == [Part(slice(0, 2), 1.0)]


def test_the_configuration_of_a_study_runs_on_any_number_of_gpus() -> None:
    batch = load_config(ROOT / "config/config.yaml").train.batch_size
    for world in (1, 2, 4, 8):
        assert all(parts_of(rank, world, batch, None) for rank in range(world))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("micro")


def run_all(launch: Launch, root: Path, world: int, **plans: tuple[str, ...]) -> None:
    items = [training(root / name, *settings) for name, settings in plans.items()]
    for ending in launch(*items, world=world)[0]:
        assert ending.code == 0, ending.text


@pytest.fixture(scope="module")
def cut(launch: Launch, runs: Path) -> Path:
    """The batches of 4 and of 3, whole and cut in several ways, by stage."""
    micro = "runtime.micro_batch={}".format
    one = {"whole": (), "whole-3": (BATCH_3,), "whole-3-in-turns": (BATCH_3, *ONE)}
    one |= {f"one-{stage}": (micro(1 + stage % 2), f"runtime.zero_stage={stage}") for stage in range(4)}
    run_all(launch, runs, 1, **one)
    two = {f"two-{stage}": (BATCH_3, micro(1), f"runtime.zero_stage={stage}") for stage in range(4)}
    two["two-3-in-turns"] = (*two["two-3"], *ONE)
    run_all(launch, runs, 2, **two)
    return runs


def criticality(run: Path) -> dict[str, torch.Tensor]:
    (part,) = (run / "checkpoints/step-00000006").glob("part-00000-*")
    return {name: value for name, value in load_file(part).items() if "criticality" in name}


def assert_same(first: Path, second: Path) -> None:
    assert losses(first) == pytest.approx(losses(second), abs=LOSS)
    assert_close(weights(first), weights(second), WEIGHT)
    scored = criticality(first)
    assert set(scored) == {f"buffer/criticality.{name}" for name, _ in RunningCriticality(4).named_buffers()}
    assert torch.equal(scored["buffer/criticality.seen"], criticality(second)["buffer/criticality.seen"])
    torch.testing.assert_close(
        scored["buffer/criticality.mean"], criticality(second)["buffer/criticality.mean"], atol=1e-4, rtol=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", range(4))
def test_micro_batches_of_one_process_equal_the_whole_batch(cut: Path, stage: int) -> None:
    assert_same(cut / "whole", cut / f"one-{stage}")


@pytest.mark.slow
@pytest.mark.parametrize("stage", range(4))
def test_unequal_shares_of_two_processes_equal_one(cut: Path, stage: int) -> None:
    """One process has two samples and the other one, of which it computes a copy beside."""
    assert_same(cut / "whole-3", cut / f"two-{stage}")


@pytest.mark.slow
def test_processes_take_turns_together(cut: Path) -> None:
    """Where a step visits a subset or walks one step of the path."""
    assert_same(cut / "whole-3-in-turns", cut / "two-3-in-turns")


@pytest.mark.slow
def test_the_whole_batch_is_plain_pytorch(cut: Path, inputs: Path) -> None:
    curve, final = plain_training(load_config(inputs / "tiny.yaml", [BATCH_3]), inputs / "data")
    assert losses(cut / "two-2") == pytest.approx(curve, abs=LOSS)
    assert_close(final, weights(cut / "two-2"), WEIGHT)


@pytest.mark.slow
def test_shares_of_removals_count_every_sample_once(cut: Path) -> None:
    def removed(run: Path) -> list[object]:
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        return [event for event in lines if event["event"] == "removal"]

    assert removed(cut / "whole-3") == removed(cut / "two-1")


@pytest.mark.slow
def test_four_processes_with_three_samples_equal_one(cut: Path, launch: Launch, runs: Path) -> None:
    run_all(launch, runs, 4, **{f"four-{stage}": (BATCH_3, f"runtime.zero_stage={stage}") for stage in (1, 3)})
    for stage in (1, 3):
        assert_same(cut / "whole-3", runs / f"four-{stage}")

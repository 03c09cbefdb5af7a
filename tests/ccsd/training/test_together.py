"""Trainings of several processes: exact resume, resume on another number of them, accidents."""

import json
import re
import time
from pathlib import Path

import pytest

from ccsd.config import load_config
from support.comparing import LOSS, WEIGHT, assert_close, assert_same_run, losses, weights
from support.plain import plain_training
from support.trainings import Ending, Launch, training

pytestmark = pytest.mark.slow
EXCHANGES_OF_A_STEP = {  # that scores
    "all_reduce, device": 4,  # gradients in one bucket, their norm, criticalities; and the means of the log
    "all_reduce, host": 1,  # whether anybody was asked to stop
    "all_gather_object, host": 1,  # the paths of the log, which has every step here
}
STAGE_2, STAGE_3 = "runtime.zero_stage=2", "runtime.zero_stage=3"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def endings(launch: Launch, runs: Path) -> dict[str, Ending]:
    """What two processes did, in one launch."""
    items = {
        "whole": training(runs / "whole", STAGE_2, count_at=1),
        "stopped": training(runs / "parts", STAGE_2, stop_at=2),
        "resumed": training(runs / "parts", STAGE_2),
        "to shrink": training(runs / "elastic", STAGE_2, stop_at=2),
        "full": training(runs / "full", STAGE_3, "runtime.checkpoint_every=2", full_at=3),
        "space again": training(runs / "full", STAGE_3, "runtime.checkpoint_every=2"),
    }
    return dict(zip(items, launch(*items.values(), world=2)[0], strict=True))


@pytest.fixture(scope="module")
def accidents(endings: dict[str, Ending], launch: Launch, runs: Path) -> dict[str, Ending]:
    """What two processes did when one of them failed, saw an older folder, or heard a stop while it validated."""
    items = {
        "fails": training(runs / "fails", fail_at=2),
        "as on a GPU": training(runs / "as on a GPU", STAGE_3, as_on_gpu=True),
        "to blind": training(runs / "blind", STAGE_2, stop_at=2),
        "blind": training(runs / "blind", STAGE_2, blind=True),
        "blind again": training(runs / "blind", STAGE_2, blind=True),
        "late": training(runs / "late", STAGE_2, late_at=3),
        "validated": training(runs / "late", STAGE_2),
    }
    first, last = launch(*items.values(), world=2)
    return dict(zip(items, first, strict=True)) | {
        f"{name}, last": ending for name, ending in zip(items, last, strict=True)
    }


@pytest.fixture(scope="module")
def shrunk(endings: dict[str, Ending], launch: Launch, runs: Path) -> Ending:
    """Return how one process carried on what two had begun."""
    assert endings["to shrink"].code == 75
    ((ending,),) = launch(training(runs / "elastic", STAGE_3, stop_at=4))
    return ending


@pytest.fixture(scope="module")
def grown_and_killed(shrunk: Ending, launch: Launch, runs: Path) -> tuple[list[Ending], list[Ending]]:
    """Two processes carry on what one left; then one of two is killed."""
    assert shrunk.code == 75
    first, last = launch(
        training(runs / "elastic", "runtime.zero_stage=1"), training(runs / "killed", kill_at=2), world=2
    )
    return first, last


def test_two_sharded_processes_resume_exactly(endings: dict[str, Ending], runs: Path) -> None:
    assert [endings[name].code for name in ("whole", "stopped", "resumed")] == [0, 75, 0], endings
    assert_same_run(runs / "whole", runs / "parts")


def test_the_exchanges_of_a_step_are_few_and_those_of_hosts_wait_for_no_gpu(endings: dict[str, Ending]) -> None:
    (line,) = re.findall(r"^exchanged: (.*)$", endings["whole"].text, re.MULTILINE)
    assert json.loads(line) == EXCHANGES_OF_A_STEP


def test_two_sharded_processes_equal_plain_pytorch(endings: dict[str, Ending], runs: Path, inputs: Path) -> None:
    curve, final = plain_training(load_config(inputs / "tiny.yaml"), inputs / "data")
    assert losses(runs / "whole") == pytest.approx(curve, abs=LOSS)
    assert_close(final, weights(runs / "whole"), WEIGHT)


def test_the_ways_of_gpus_learn_the_same_though_weights_are_sharded(accidents: dict[str, Ending], runs: Path) -> None:
    assert accidents["as on a GPU"].code == 0, accidents["as on a GPU"].text
    assert losses(runs / "as on a GPU") == pytest.approx(losses(runs / "whole"), abs=LOSS)
    assert_close(weights(runs / "whole"), weights(runs / "as on a GPU"), WEIGHT)


def test_a_training_resumes_on_another_number_of_processes_and_says_so(
    shrunk: Ending, grown_and_killed: tuple[list[Ending], list[Ending]], runs: Path
) -> None:
    grown = grown_and_killed[0][0]
    assert grown.code == 0, grown.text
    said = "resuming from step 2; saved by 2 processes with ZeRO stage 2, now sharded over 1 process with stage 3"
    assert said in shrunk.text
    said = "resuming from step 4; saved by 1 process with ZeRO stage 3, now sharded over 2 processes with stage 1"
    assert said in grown.text
    assert losses(runs / "elastic") == pytest.approx(losses(runs / "whole"), abs=LOSS)
    assert_close(weights(runs / "whole"), weights(runs / "elastic"), WEIGHT)


def test_a_full_disk_stops_the_save_and_keeps_what_was_saved(endings: dict[str, Ending], runs: Path) -> None:
    full = endings["full"]
    assert full.code == 1
    assert "Traceback" not in full.text
    assert "the checkpoint of step 3 could not be saved (process 1: " in full.text
    assert "File too large" in full.text
    assert "free some space, then run the same command again to resume" in full.text
    assert endings["space again"].code == 0
    assert "resuming from step 2\n" in endings["space again"].text
    assert_close(weights(runs / "whole"), weights(runs / "full"), WEIGHT)
    assert not list((runs / "full/checkpoints").glob(".*"))


def test_a_process_that_dies_takes_the_others_down_with_one_message(
    grown_and_killed: tuple[list[Ending], list[Ending]],
) -> None:
    (_, survivor), (_, victim) = grown_and_killed
    assert (survivor.code, victim.code) == (1, -9)
    assert "Traceback" not in survivor.text
    assert survivor.text.count("error: ") == 1
    assert (
        "error: process 0: lost contact with the other processes: one exited or did not respond for 120 s"
        in survivor.text
    )


def test_a_process_that_fails_speaks_and_ends_though_the_end_of_the_group_waits_for_all(
    accidents: dict[str, Ending],
) -> None:
    """Its own error is seen, at once: had it waited for the others, they would have waited for it, 120 s."""
    survivor, failed = accidents["fails"], accidents["fails, last"]
    assert (survivor.code, failed.code) == (1, 2)
    assert failed.text.endswith("error: process 1: case X: damaged\n")
    assert survivor.text.endswith("Run the same command again to resume\n")
    assert "process 0: lost contact with the other processes" in survivor.text
    assert "Traceback" not in survivor.text + failed.text
    assert failed.seconds < 60


def test_the_first_process_decides_for_all_what_is_resumed_and_finished(
    accidents: dict[str, Ending], runs: Path
) -> None:
    assert [accidents[name].code for name in ("to blind", "blind", "blind again")] == [75, 0, 0], accidents
    assert "resuming from step 2\n" in accidents["blind"].text
    assert "already trained with this configuration" in accidents["blind again"].text
    assert_same_run(runs / "whole", runs / "blind")


def test_a_stop_is_heard_within_a_validation_which_is_done_again(accidents: dict[str, Ending], runs: Path) -> None:
    assert accidents["late"].code == 75
    assert "stopped at step 3, which is saved" in accidents["late"].text
    assert "validation at step 3" not in accidents["late"].text
    assert accidents["validated"].code == 0
    assert "validation at step 3" in accidents["validated"].text
    assert_same_run(runs / "whole", runs / "late")


@pytest.mark.exhaustive
def test_a_process_that_hangs_is_waited_for_only_so_long(launch: Launch, tmp_path: Path) -> None:
    frozen = training(tmp_path, freeze_at=2)
    began = time.monotonic()
    ((survivor,), _) = launch(frozen, world=2, patience=15)
    assert survivor.code == 1
    assert "process 0: lost contact with the other processes: one exited or did not respond for 15 s" in survivor.text
    assert time.monotonic() - began < 120


def test_only_hidden_folders_are_ever_incomplete(endings: dict[str, Ending], runs: Path) -> None:
    folders = list(runs.glob("*/checkpoints/step-*"))
    assert len(folders) >= 5
    for folder in folders:
        world = json.loads((folder / "checkpoint.json").read_text())["world"]
        assert len(list(folder.glob("part-*"))) == world

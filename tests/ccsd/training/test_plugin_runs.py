"""Networks and an objective of others as they run: resumed, sharded over processes, scored, used."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccsd.records import RunRecord, read_events
from support.comparing import LOSS, WEIGHT, assert_close, assert_same_run, losses, weights
from support.processes import ccsd_here
from support.trainings import Ending, Launch, training

pytestmark = pytest.mark.slow

MEAN = ("model={backbone: mean}", "distillation.method=ccsd")
OWN = ("model={backbone: mean}", "distillation={method: one-subset, options: {weight: 0.3}}")
CONCAT = ("model={backbone: 'example_plugin.network:Concatenation'}", "distillation={method: dropout}")
STILL = ("model={backbone: concat, options: {dropout: 0}}", "distillation={method: dropout}")
"""Without layers that draw, whose numbers depend on how the batch is cut."""
KINDS = {"mean": MEAN, "own": OWN, "concat": CONCAT}


@pytest.fixture(scope="module")
def environment(site: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plugins")


@pytest.fixture(scope="module")
def alone(launch: Launch, runs: Path, environment: None) -> list[Ending]:
    items = [training(runs / "still", *STILL)]
    for name, given in KINDS.items():
        items += [
            training(runs / name, *given),
            training(runs / f"{name}-parts", *given, stop_at=2),
            training(runs / f"{name}-parts", *given),
        ]
    return launch(*items)[0]


@pytest.fixture(scope="module")
def together(launch: Launch, runs: Path, environment: None) -> list[Ending]:
    items = [
        training(runs / f"{name}-{stage}", *given, f"runtime.zero_stage={stage}", *more)
        for name, given in (("mean", MEAN), ("own", OWN), ("still", STILL))
        for stage, more in ((0, ()), (2, ("runtime.micro_batch=1",)), (3, ()))
    ]
    return launch(*items, world=2)[0]


@pytest.mark.parametrize("name", KINDS)
def test_a_resumed_run_equals_a_whole_one(name: str, alone: list[Ending], runs: Path) -> None:
    assert [ending.code for ending in alone] == [0, *[0, 75, 0] * 3], alone
    assert_same_run(runs / name, runs / f"{name}-parts")


@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize("name", ["mean", "own", "still"])
def test_two_processes_learn_what_one_does(
    name: str, stage: int, alone: list[Ending], together: list[Ending], runs: Path
) -> None:
    assert [ending.code for ending in together] == [0] * 9, together
    assert losses(runs / f"{name}-{stage}") == pytest.approx(losses(runs / name), abs=LOSS)
    assert_close(weights(runs / name), weights(runs / f"{name}-{stage}"), WEIGHT)


def test_an_objective_names_its_terms_in_the_log(alone: list[Ending], runs: Path) -> None:
    steps = [event for event in read_events(runs / "own") if event["event"] == "train"]
    assert steps
    for event in steps:
        assert event["loss"] == pytest.approx(event["full"] + event["part"] + 0.3 * event["taught"], rel=1e-5)
        assert "hmsd" not in event


def test_the_record_says_whose_they_are(alone: list[Ending], runs: Path) -> None:
    network, objective = RunRecord.read(runs / "own").plugins
    assert (network.kind, network.name, network.distribution, network.version) == (
        "backbone", "mean", "example-plugin", "1.0",
    )  # fmt: skip
    assert (objective.kind, objective.name) == ("objective", "one-subset")


@pytest.mark.parametrize("name", KINDS)
def test_it_is_scored_and_used_like_any_other(
    name: str, alone: list[Ending], runs: Path, inputs: Path, cohort: Path, tmp_path: Path, installed: Path
) -> None:
    model = ("--model", runs / name, "--device", "cpu")
    scored = ccsd_here("evaluate", *model, "--data", inputs / "data", "--out", tmp_path / "scores")
    assert scored.returncode == 0, scored.stderr
    lines = (tmp_path / "scores/metrics.tsv").read_text().splitlines()
    cases = json.loads((tmp_path / "scores/evaluation.json").read_text())["cases"]
    assert len(lines) == 1 + cases * 15 * 3
    case = min(path for path in cohort.iterdir() if path.is_dir())
    assert ccsd_here("predict", case, tmp_path / "out.nii.gz", *model).returncode == 0
    assert (tmp_path / "out.nii.gz").is_file()


def test_what_does_not_fit_ends_before_the_first_step(inputs: Path, site: Path, tmp_path: Path) -> None:
    """On the machine that submits, so that no job waits in a queue for it."""
    (tmp_path / "tiny.yaml").write_text((inputs / "tiny.yaml").read_text())
    words = ["train", "--config", "tiny.yaml", "--data", str(inputs / "data"), "--run", "run", "--job", "cluster=slurm"]
    command = [sys.executable, "-m", "ccsd", *words, "--set", "model={backbone: concat}"]
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: distillation.method=ccsd compares many sets" in done.stderr
    assert not (tmp_path / "run/job/001").exists()

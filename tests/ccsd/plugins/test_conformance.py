"""The test that authors run: it passes what is right, and names what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccsd.cli import app
from ccsd.errors import UsageError
from ccsd.plugins.check_network import NetworkChecks
from ccsd.plugins.check_objective import ObjectiveChecks
from ccsd.plugins.check_training import TrainingChecks
from ccsd.plugins.conformance import config_for, kind_of, run_checks
from ccsd.plugins.find import BACKBONE, OBJECTIVE, Kind
from ccsd.plugins.outcome import Outcome, outcome_of
from support import ROOT
from support.processes import ccsd_here

SUPPORT = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
"""The root first, or tests/ccsd would pass for the package ccsd."""
FAULTY = {
    "Shapes": "shapes",
    "Leaks": "absent sequences",
    "Blind": "sequences count",
    "Unused": "gradients",
    "Batched": "samples apart",
    "Erratic": "determinism",
    "Forgets": "state_dict",
    "Coarse": "bf16",
    "Sizes": "patch sizes",
    "Neighbours": "sets apart",
    "Fading": "sets apart",
    "Probable": "shapes",
    "Rooted": "gradients",
    "Private": "determinism",
    "Restive": "determinism",
}
FAULTY_OBJECTIVES = {
    "Summed": "mean over samples",
    "Detached": "result",
    "Restless": "determinism",
    "Partial": "gradients",
    "Pooled": "mean over samples",
    "Hopeful": "result",
}


def network_outcomes(name: str) -> dict[str, Outcome]:
    config = config_for(BACKBONE, f"support.faulty:{name}", (), 20)
    return {key: outcome_of(key, check) for key, check in NetworkChecks(config).all().items()}


def objective_outcomes(name: str) -> dict[str, Outcome]:
    config = config_for(OBJECTIVE, f"support.faulty:{name}", (), 20)
    return {key: outcome_of(key, check) for key, check in ObjectiveChecks(config).all().items()}


def failed(outcomes: dict[str, Outcome]) -> set[str]:
    return {name for name, outcome in outcomes.items() if not outcome.passed}


@pytest.mark.parametrize("name", ["Right", "OneSize", "Draws"])
def test_a_network_that_is_right_passes(name: str) -> None:
    assert failed(network_outcomes(name)) == set()


@pytest.mark.parametrize(("name", "check"), FAULTY.items())
def test_a_fault_of_a_network_is_named(name: str, check: str) -> None:
    checks = NetworkChecks(config_for(BACKBONE, f"support.faulty:{name}", (), 20)).all()
    outcome = outcome_of(check, checks[check])
    line = str(outcome)
    assert line.startswith(f"FAIL  {check}: ")
    assert " expected " in line
    assert outcome.advice in line


def test_weights_that_need_no_gradient_are_named() -> None:
    config = config_for(BACKBONE, "support.faulty:Unused", (), 20)
    assert NetworkChecks(config, ("spare",)).gradients().passed


def test_an_error_of_the_authors_own_is_shown() -> None:
    checks = NetworkChecks(config_for(BACKBONE, "support.faulty:Breaks", (), 20)).all()
    assert "RuntimeError: something of the author's own" in str(outcome_of("shapes", checks["shapes"]))


def test_an_objective_that_is_right_passes() -> None:
    assert failed(objective_outcomes("Learning")) == set()


def test_an_objective_passes_with_layers_that_draw() -> None:
    config = config_for(OBJECTIVE, "support.faulty:Learning", ("model={backbone: 'support.faulty:Draws'}",), 20)
    assert outcome_of("mean over samples", ObjectiveChecks(config).mean).passed


def test_what_returns_nothing_of_use_is_reported_once(tmp_path: Path) -> None:
    for kind, name in ((BACKBONE, "Shapes"), (OBJECTIVE, "Detached")):
        config = config_for(kind, f"support.faulty:{name}", (), 20)
        assert [outcome.passed for outcome in run_checks(kind, config, tmp_path)] == [False]


@pytest.mark.parametrize(("name", "check"), FAULTY_OBJECTIVES.items())
def test_a_fault_of_an_objective_is_named(name: str, check: str) -> None:
    checks = ObjectiveChecks(config_for(OBJECTIVE, f"support.faulty:{name}", (), 20)).all()
    assert not outcome_of(check, checks[check]).passed


@pytest.mark.slow
def test_examples_pass_without_training(installed: Path) -> None:
    for name in ("mean", "concat"):
        config = config_for(BACKBONE, name, (), 20)
        assert all(outcome_of(key, check).passed for key, check in NetworkChecks(config).all().items()), name
    for overrides, spared in ((), ()), (("model={backbone: concat}",), ("coarse_head",)):
        config = config_for(OBJECTIVE, "one-subset", overrides, 20)
        checks = ObjectiveChecks(config, spared).all()
        assert all(outcome_of(key, check).passed for key, check in checks.items())
    assert not ObjectiveChecks(config).gradients().passed


@pytest.mark.slow
def test_ours_pass_too() -> None:
    config = config_for(BACKBONE, "support.faulty:Right", ("model={width: 4, levels: 3}",), 20)
    assert config.model.backbone == "light"
    assert all(outcome_of(key, check).passed for key, check in NetworkChecks(config, ("classify",)).all().items())


def test_a_name_tells_its_kind(installed: Path) -> None:
    assert kind_of("mean", objective=False) is BACKBONE
    assert kind_of("one-subset", objective=False) is OBJECTIVE
    assert kind_of("a.b:C", objective=False) is BACKBONE
    assert kind_of("a.b:C", objective=True) is OBJECTIVE
    with pytest.raises(UsageError, match=r"no backbone or objective has this name\. Backbones: ours: light, .*mean"):
        kind_of("meen", objective=False)


@pytest.mark.parametrize("steps", ["0", "-20", "30"])
def test_steps_that_do_not_fit_are_rejected(steps: str) -> None:
    done = CliRunner().invoke(app, ["check-plugin", "support.faulty:Right", "--steps", steps])
    assert "use a multiple of 20" in str(done.exception)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "name", "check"),
    [(BACKBONE, "Constant", "learns"), (BACKBONE, "Counts", "resumes"), (OBJECTIVE, "Ranked", "two processes")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_that_a_training_shows_is_named(
    kind: Kind, name: str, check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    checks = TrainingChecks(config_for(kind, f"support.faulty:{name}", (), 20), tmp_path).all()
    learns = outcome_of("learns", checks["learns"])
    assert learns.passed == (check != "learns"), learns
    assert check == "learns" or not outcome_of(check, checks[check]).passed


def test_the_command_names_what_failed(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingChecks, "all", lambda _: {})
    right = ccsd_here("check-plugin", "mean")
    assert (right.returncode, [line[:3] for line in right.stdout.splitlines()]) == (0, ["ok "] * 11)
    leaky = ccsd_here("check-plugin", "support.faulty:Leaks")
    assert leaky.returncode == 2
    bad = [line.split(":")[0] for line in leaky.stdout.splitlines() if not line.startswith("ok ")]
    assert bad == ["FAIL  absent sequences", "FAIL  sets apart"]
    assert "Leaks does not follow the interface: absent sequences, sets apart; " in leaky.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("one-subset", ("--set", "model.backbone=concat", "--without-gradient", "coarse_head")),
        ("support.faulty:Weighing", ("--objective", "--steps", "20")),
    ],
)
def test_the_command_prints_a_line_for_each_check(name: str, words: tuple[str, ...], installed: Path) -> None:
    """The first one has layers that draw, the second one weights of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), SUPPORT])}
    command = [sys.executable, "-m", "ccsd", "check-plugin", name, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 9, done.stdout + done.stderr
    assert (done.returncode, [line for line in lines if not line.startswith("ok ")]) == (0, [])

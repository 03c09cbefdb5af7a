"""Mistakes on the command line: one message that says what and where, exit code 2, no traceback, nothing written."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ccsd.cli import app
from ccsd.cli.options import NUMBERINGS, TASK
from ccsd.errors import UsageError
from preprocess.task import default_task
from support.processes import ccsd_here


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(
            "name: x\nphantom: {}\ntrain: {stepz: 3}", "train.stepz: unknown key; allowed here: steps", id="key"
        ),
        pytest.param("name: [", "not valid YAML", id="yaml"),
    ],
)
def test_wrong_configurations(text: str, words: str, tmp_path: Path) -> None:
    config = tmp_path / "study.yaml"
    config.write_text(text)
    (tmp_path / "data").mkdir()
    done = ccsd_here("train", "--config", config, "--data", tmp_path / "data", "--run", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", typer.main.get_command(app).commands)
def test_every_stage_explains_itself(stage: str) -> None:
    done = ccsd_here(stage, "--help")
    assert done.returncode == 0
    assert f"Usage: ccsd {stage}" in done.stdout


def test_help_answers_without_loading_the_libraries() -> None:
    code = "import sys; sys.argv = ['ccsd', '--version']\ntry:\n    from ccsd.cli import main; main()\nfinally:\n    "
    code += "print(sorted({'torch', 'monai', 'deepspeed', 'zarr', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_unknown_job_settings_list_the_valid_ones(tmp_path: Path) -> None:
    config = tmp_path / "study.yaml"
    config.write_text("name: x\nphantom: {}")
    done = ccsd_here("train", "--config", config, "--data", tmp_path, "--run", tmp_path / "r", "--job", "x=1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_the_help_names_every_label_convention() -> None:
    assert NUMBERINGS.split(", ") == list(default_task().conventions)


def test_the_default_of_the_command_line_is_the_default_task() -> None:
    assert default_task().name == TASK


MODEL, FILES = ("--model", "run", "--data", "data"), ("--pred", "pred", "--ref", "ref")


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (MODEL, ("--layout", "brats2020")),
        (MODEL, ("--pred-labels", "brats2023")),
        (MODEL, ("--ref-labels", "brats2023")),
        (MODEL, ("--ignore-affine",)),
        (MODEL, ("--partial",)),
        (FILES, ("-m", "t1")),
        (FILES, ("--part", "1/2")),
        (FILES, ("--fold", "0")),
    ],
)
def test_options_of_the_other_kind_of_evaluation_are_rejected(given: tuple[str, ...], option: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"^{option[0]} .*does not apply to"):
        app(["evaluate", *given, "--out", "out", *option], standalone_mode=False)

"""Mistakes on the command line: one message that says what and where, exit code 2, no traceback, nothing written."""

import subprocess
import sys
from pathlib import Path

import pytest


def _ccsd(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "ccsd", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(
            "name: x\nphantom: {}\ntrain: {stepz: 3}", "train.stepz: unknown key; allowed here: steps", id="key"
        ),
        pytest.param("name: x\nphantom: {}\ntrain: {steps: many}", "train.steps", id="value"),
        pytest.param("name: x", "exactly one of 'source'", id="no-data"),
        pytest.param("name: x\nphantom: {}\ntrain: {validate_subsets: [flair+t9]}", "t9", id="modality"),
        pytest.param("name: [", "not valid YAML", id="yaml"),
        pytest.param("- a", "expected a mapping", id="list"),
    ],
)
def test_wrong_configurations(text: str, words: str, tmp_path: Path) -> None:
    config = tmp_path / "study.yaml"
    config.write_text(text)
    (tmp_path / "data").mkdir()
    done = _ccsd("train", "--config", str(config), "--data", str(tmp_path / "data"), "--run", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", ["phantom", "convert", "split", "train", "evaluate", "report", "predict", "doctor"])
def test_every_stage_explains_itself(stage: str) -> None:
    done = _ccsd(stage, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_help_answers_without_loading_the_libraries() -> None:
    code = "import sys; sys.argv = ['ccsd', '--version']\ntry:\n    from ccsd.cli import main; main()\nfinally:\n    "
    code += "print(sorted({'torch', 'monai', 'deepspeed', 'zarr', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_unknown_job_settings_list_the_valid_ones(tmp_path: Path) -> None:
    config = tmp_path / "study.yaml"
    config.write_text("name: x\nphantom: {}")
    done = _ccsd(
        "train", "--config", str(config), "--data", str(tmp_path), "--run", str(tmp_path / "r"), "--job", "x=1"
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr

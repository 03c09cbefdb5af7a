"""The tutorial's notebook runs from top to bottom, and shows what it then prints."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

NOTEBOOK = ROOT / "docs/tutorial/predict.ipynb"


def outputs(path: Path) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def dice(path: Path) -> list[float]:
    text = "".join("".join(output.get("text", [])) for output in outputs(path))
    return [float(number) for number in re.findall(r"Dice \w+ ([\d.]+)", text)]


def test_what_it_prints_is_kept_in_the_file() -> None:
    assert len(dice(NOTEBOOK)) == 9  # three sets, three regions
    assert any("image/png" in output.get("data", {}) for output in outputs(NOTEBOOK))


@pytest.mark.slow
def test_it_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    again = Path(shutil.copy(NOTEBOOK, tmp_path))
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", again]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert not [output for output in outputs(again) if output["output_type"] == "error"]
    assert dice(again) == pytest.approx(dice(NOTEBOOK), abs=0.02)

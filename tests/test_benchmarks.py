"""The check of a GPU is run where there is none, so that it works on the day there is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_check_of_a_gpu_runs_and_writes_what_it_found(tmp_path: Path) -> None:
    words = [sys.executable, ROOT / "benchmarks/gpu_check.py", "--device", "cpu", "--tiny", "--no-tests"]
    result = subprocess.run([*words, "--out", "found"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
    found = json.loads((tmp_path / "found/gpu-check.json").read_text())
    (row,) = found["steps"]
    assert row["name"] == "unet"
    assert row["step_s"] > 0
    assert row["tflop"] > 0
    assert row["costs"]
    assert {"step_s", "forward", "backward", "update"} <= found["training"].keys()
    assert found["evaluation"]["combinations"] == 15
    assert found["evaluation"]["case_s"] > 0
    assert "| unet |" in (tmp_path / "found/gpu-check.md").read_text()

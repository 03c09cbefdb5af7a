"""Unusable cases: the study continues without them and reports this, or stops if there are too many."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.projects import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

UNTIL_SPLIT = ("--profile", "cluster/local", "--configfile", "study.yaml", "--until", "split")


def _stores(clone: Project) -> int:
    return len(list((clone.results / "data").glob("*.zarr")))


def test_one_bad_case_is_left_out_and_told_until_it_is_mended(tmp_path: Path, project: Callable[..., Project]) -> None:
    source = tmp_path / "source"
    command = [sys.executable, "-m", "ccsd", "phantom", str(source), "--cases", "6", "--size", "32"]
    subprocess.run(command, check=True, capture_output=True)
    bad = min(source.rglob("*.nii.gz"))
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-50])
    clone = project(stand_in=False)
    convert = {"cases_per_job": 3}

    clone.configure(source=str(source), convert=convert)
    stopped = clone.snakemake(*UNTIL_SPLIT)
    assert stopped.returncode == 1, "one of six is more than a twentieth"
    assert (
        "1 of 6 cases were rejected by the conversion, more than the allowed share of 0.05"
        in stopped.stdout + stopped.stderr
    )
    assert _stores(clone) == 5

    clone.configure(source=str(source), convert=convert | {"max_rejected": 0.2})
    done = clone.snakemake(*UNTIL_SPLIT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"left out, rejected by the conversion: {bad.parent.name}: " in done.stdout
    assert "--forcerun convert" in done.stdout
    assert "rule convert" not in done.stdout + done.stderr, "the other cases were not converted again"

    bad.write_bytes(whole)
    mended = clone.snakemake(*UNTIL_SPLIT, "--forcerun", "convert")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "left out" not in mended.stdout
    assert _stores(clone) == 6

"""Several Snakemakes in one folder, and what one that was killed leaves there. A stand-in leaves each stage's files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.processes import eventually

LOCAL = ("--profile", "cluster/local", "--configfile", "study.yaml")


@pytest.fixture
def held(project: Callable[..., Any]) -> Any:
    """Return a clone whose Snakemake is held in its conversion."""
    clone = project()
    clone.configure(phantom={"cases": 3})
    (clone.folder / "hold-convert").touch()
    clone.first = clone.start(*LOCAL)
    eventually(lambda: clone.calls("convert"))
    return clone


def _let_go(clone: Any) -> None:
    (clone.folder / "hold-convert").unlink()


def test_a_second_one_on_the_same_study_is_refused_and_the_first_goes_on(held: Any) -> None:
    second = held.snakemake(*LOCAL)
    assert second.returncode == 1
    assert f"another Snakemake works on this study, process {held.first.process.pid} on" in second.stderr
    assert "Traceback" not in second.stdout + second.stderr
    _let_go(held)
    held.first.end()
    assert len(held.calls("convert")) == len(held.calls("train")) == 1


def test_a_second_one_on_another_study_runs_beside_it(held: Any) -> None:
    (held.folder / "other.yaml").write_text("name: other\nphantom: {cases: 3}\n")
    second = held.start(*LOCAL[:2], "--configfile", "other.yaml")
    _let_go(held)
    held.first.end()
    second.end()
    assert (held.folder / "results/other/report.html").exists()
    assert (held.results / "report.html").exists()


def test_after_one_was_killed_the_same_command_is_enough(held: Any) -> None:
    held.first.kill()
    _let_go(held)
    done = held.snakemake(*LOCAL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(held.calls("phantom")) == 1


def test_a_dry_run_beside_it_disturbs_nothing(held: Any) -> None:
    assert held.snakemake(*LOCAL, "--dry-run").returncode == 0
    _let_go(held)
    held.first.end()


def test_deleted_tables_of_the_report_are_made_again(held: Any) -> None:
    _let_go(held)
    held.first.end()
    for name in ("metrics.parquet", "comparisons.tsv"):
        path: Path = held.results / name
        path.unlink()
        held.forget_calls()
        assert held.snakemake(*LOCAL).returncode == 0
        assert path.exists()
        assert [line.split()[0] for line in held.calls()] == ["report"]

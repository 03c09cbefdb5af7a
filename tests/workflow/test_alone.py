"""Several Snakemakes in one folder, and what a killed one leaves behind. A stand-in writes each stage's files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from support.processes import eventually
from support.projects import HERE, Project


@pytest.fixture
def held(project: Callable[..., Project]) -> Project:
    """Return a clone whose Snakemake is held in its conversion."""
    clone = project()
    clone.configure(phantom={"cases": 3})
    (clone.folder / "hold-convert").touch()
    clone.start(*HERE)
    eventually(lambda: clone.calls("convert"))
    return clone


def _let_go(clone: Project) -> None:
    (clone.folder / "hold-convert").unlink()


def test_a_second_one_on_the_same_study_is_rejected_and_the_first_goes_on(held: Project) -> None:
    second = held.snakemake(*HERE)
    assert second.returncode == 1
    assert f"another Snakemake is working on this study (process {held.running[0].process.pid} on" in second.stderr
    assert "Traceback" not in second.stdout + second.stderr
    _let_go(held)
    held.running[0].end()
    assert len(held.calls("convert")) == len(held.calls("train")) == 1


@pytest.mark.slow
def test_a_second_one_on_another_study_runs_beside_it(held: Project) -> None:
    (held.folder / "other.yaml").write_text("name: other\nphantom: {cases: 3}\n")
    second = held.start(*HERE[:2], "--configfile", "other.yaml")
    _let_go(held)
    held.running[0].end()
    second.end()
    assert (held.folder / "results/other/report.html").exists()
    assert (held.results / "report.html").exists()


@pytest.mark.slow
def test_after_one_was_killed_the_same_command_is_enough(held: Project) -> None:
    held.running[0].kill()
    _let_go(held)
    done = held.snakemake(*HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(held.calls("phantom")) == 1


@pytest.mark.slow
def test_a_dry_run_beside_it_disturbs_nothing(held: Project) -> None:
    assert held.snakemake(*HERE, "--dry-run").returncode == 0
    _let_go(held)
    held.running[0].end()


@pytest.mark.slow
def test_deleted_tables_of_the_report_are_made_again(held: Project) -> None:
    _let_go(held)
    held.running[0].end()
    for name in ("metrics.parquet", "comparisons.tsv"):
        path: Path = held.results / name
        path.unlink()
        held.forget_calls()
        assert held.snakemake(*HERE).returncode == 0
        assert path.exists()
        assert [line.split()[0] for line in held.calls()] == ["report"]

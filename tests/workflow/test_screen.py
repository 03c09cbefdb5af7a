"""The screen: one line when a job starts, one when it ends, a failing log once, and where to find the rest."""

import io
import logging
from collections.abc import Callable
from typing import Any

import pytest
from snakemake.logging import LogEvent

from cluster.snakemake.screen import _Screen
from support.projects import HERE, TINY, Project

JOBS = ("phantom", "convert 1-of-1", "split", "train ccsd, 0", "evaluate ccsd-s0, part-1-of-1", "report")


@pytest.mark.slow
def test_each_job_has_two_lines(project: Callable[..., Project]) -> None:
    clone = project()
    clone.configure(**TINY)
    done = clone.snakemake(*HERE)
    assert done.returncode == 0, done.stderr
    lines = [line[9:] for line in done.stderr.splitlines()]
    for job in JOBS:
        assert [line.partition(": ")[2].partition(" (")[0] for line in lines if line.startswith(f"{job}: ")] == [
            "started",
            f"done, {JOBS.index(job) + 1} of 7 steps",
        ]
    assert len(done.stderr.splitlines()) < 50
    log = next((clone.folder / ".snakemake/log").iterdir())
    assert f"Complete log(s): {log}" in done.stderr
    assert "Shell command: ccsd convert" in log.read_text(), "the rest is there"


@pytest.mark.slow
def test_a_failing_jobs_words_are_shown_once(project: Callable[..., Project]) -> None:
    clone = project()
    clone.configure(**TINY)
    done = clone.snakemake(*HERE, STAND_IN_FAILS="convert")
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count("error: told to fail") == 1
    assert "convert 1-of-1: FAILED (log: results/study/logs/convert/1-of-1.log)" in done.stderr
    assert "Finished work is kept" in done.stdout


@pytest.mark.slow
def test_all_is_shown_to_those_who_ask(project: Callable[..., Project]) -> None:
    clone = project()
    clone.configure(**TINY)
    for option in ("--dry-run", "--verbose"):
        done = clone.snakemake(*HERE, option, "--until", "phantom")
        assert "Shell command: ccsd phantom" in done.stdout + done.stderr
        assert "benchmark: results/study/benchmarks/phantom.tsv" in done.stdout + done.stderr


def test_a_stage_that_ends_by_ctrl_c_has_not_failed() -> None:
    screen = _Screen(nocolor=True, stream=io.StringIO(), formatter=logging.Formatter())
    screen.names[7] = "train ccsd, 0"
    failed: dict[str, Any] = {"event": LogEvent.JOB_ERROR, "jobid": 7, "rule_name": "train", "rule_msg": "", "log": []}
    error = {"event": LogEvent.ERROR, "exception": "RuleException"}
    words = "RuleException:\nCalledProcessError in file x"
    assert screen.line(_record("", **failed)).endswith(" train ccsd, 0: FAILED")
    assert screen.line(_record(words, **error)) == words
    assert screen.line(_record("Terminating processes on user request, this might take some time."))
    assert screen.line(_record("", **failed)).endswith(" train ccsd, 0: interrupted")
    assert screen.line(_record(words, **error)) == ""


def _record(text: str, **content: Any) -> logging.LogRecord:
    record = logging.LogRecord("snakemake", logging.ERROR, "", 0, text, None, None)
    record.__dict__.update(content)
    return record

"""`cluster: executor`: the training is a job of Snakemake's executor; Snakemake restarts it, and it resumes."""

import re
import signal
from collections.abc import Callable

import pytest

from support.processes import eventually
from support.projects import TINY, Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SUBMIT = "sh -c 'setsid bash \"$0\" >> jobs.log 2>&1 & echo $!'"
ON_EXECUTOR = (
    "--executor", "cluster-generic", "--cluster-generic-submit-cmd", SUBMIT, "--jobs", "2", "--nolock",
    "--configfile", "study.yaml", "--latency-wait", "10", "--seconds-between-status-checks", "1",
    "--set-resources", "train:cluster=executor", "train:tasks_per_node=1",
)  # fmt: skip


def test_a_training_that_is_told_to_end_is_started_again_and_resumes(project: Callable[..., Project]) -> None:
    clone = project(stand_in=False)
    clone.configure(**TINY)
    running = clone.start(*ON_EXECUTOR)
    eventually(lambda: clone.steps_saved() >= 4, 200)
    launchers = [process for process in clone.alive() if {"train", "--job"} <= set(process.cmdline())]
    launcher = next(process for process in launchers if "-c" not in process.cmdline())  # not the shell around it
    launcher.send_signal(signal.SIGTERM)
    running.end(300)
    ranks = sorted((clone.training / "job").glob("*/local_0_log.out"))
    assert len(ranks) == 2, "it was started twice"
    resumed = re.search(r"resuming from step (\d+)", ranks[1].read_text())
    assert resumed is not None
    assert int(resumed[1]) >= 4
    assert "train ccsd, 0: FAILED" in running.log.read_text()
    assert (clone.results / "report.html").exists()

"""Which rejections of sbatch are final, how long sbatch is retried after the others, and how that ends."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from cluster import patience
from cluster.patience import Patience

POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
    "and/or time limits)"
)
"""SLURM's one sentence for every limit; the line before it says which."""
FINAL = (
    "sbatch: error: invalid partition specified: gpuu",
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
    f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}",
    f"sbatch: error: AssocGrpGRES\n{POLICY}",
    f"sbatch: error: QOSMaxNodePerJobLimit\n{POLICY}",
    "",
)
AWAY = (
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "sbatch: error: Unable to contact slurm controller (connect failure)",
    "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\nsbatch: error: Batch job submission",
)
LIMITS = (
    f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}",
    f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}",
    f"sbatch: error: AssocGrpSubmitJobsLimit\n{POLICY}",
)


@pytest.mark.parametrize("message", FINAL)
def test_what_is_rejected_for_good_is_not_asked_again(message: str) -> None:
    assert Patience().next_wait(message) is None


@pytest.mark.parametrize("message", AWAY)
def test_a_controller_that_is_away_is_asked_for_ten_minutes(message: str) -> None:
    stubborn, waits = Patience(), []
    while (wait := stubborn.next_wait(message)) is not None:
        waits.append(wait)
    assert waits[:4] == [1, 2, 4, 8]
    assert patience.RETRY_S <= sum(waits) < patience.RETRY_S + patience.LONGEST_S


@pytest.mark.parametrize("message", LIMITS)
def test_a_limit_on_jobs_is_waited_for_without_end_in_three_lines(message: str) -> None:
    stubborn, lines = Patience(), []
    for _ in range(500):
        wait = stubborn.next_wait(message)
        assert wait is not None
        lines.append(stubborn.report(message, wait))
    reported = [line for line in lines if line]
    assert len(reported) == 3
    assert patience.reason(message) in reported[0]
    assert reported[-1].endswith("then every minute")


def test_waits_grow_to_a_minute() -> None:
    assert list(islice(patience.back_off(15.0, float("inf")), 5)) == [15, 30, 60, 60, 60]


def test_a_pause_ends_with_the_snakemake_that_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    patience.pause(0.01)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setenv(patience.SNAKEMAKE, str(ended.pid))
    with pytest.raises(KeyboardInterrupt):
        patience.pause(60)
    monkeypatch.setenv(patience.SNAKEMAKE, str(os.getpid()))
    monkeypatch.setenv(patience.STOP, str(tmp_path / "stop"))
    patience.pause(0.01)
    (tmp_path / "stop").touch()
    with pytest.raises(KeyboardInterrupt):
        patience.pause(60)

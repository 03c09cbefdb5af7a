"""What SLURM is asked, and what of the answer counts."""

import os
from pathlib import Path

import pytest

from cluster import slurm_queries

SQUEUE = """\
#!/bin/sh
[ -n "$SQUEUE_PARTITION$SLURM_JOB_ID" ] || echo "PENDING None"
"""


def test_what_users_limit_squeue_to_hides_no_job_and_no_reason_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squeue").write_text(SQUEUE)
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SQUEUE_PARTITION", "mine")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert slurm_queries.state_and_reason("1") == ("PENDING", "")

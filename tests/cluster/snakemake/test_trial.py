"""What is known before a run begins, without a cluster."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.errors import JobError
from cluster.settings import JobSettings
from cluster.snakemake.trial import try_jobs


@pytest.mark.parametrize(
    ("executor", "cluster"), [(SimpleNamespace(run_uuid="ccsd"), "local"), (SimpleNamespace(), "slurm")]
)
def test_where_there_is_no_slurm_that_is_reported_first(
    executor: SimpleNamespace, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    workflow = SimpleNamespace(scheduler=SimpleNamespace(_executor=executor))
    with pytest.raises(JobError, match="sbatch: not found; run this on a machine of the cluster"):
        try_jobs(workflow, JobSettings.from_options([f"cluster={cluster}"]))

"""Our sbatch in front of the real one: it asks again when that may help, and never submits a job twice."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import patience
from cluster.snakemake import sbatch_retry, wrappers

CALL = ["--parsable", "--job-name", "ccsd_1", "--comment", "rule_convert_wildcards_1-of-2", "--wrap", "true"]
AWAY = "sbatch: error: Unable to contact slurm controller (connect failure)"
LATE = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"

SBATCH = """\
#!/bin/sh
echo "$@" >> {folder}/calls
if [ $(wc -l < {folder}/calls) -le {fails} ]; then echo '{message}' >&2; exit 1; fi
echo 77
"""
SQUEUE = """\
#!/bin/sh
printf '{rows}'
"""
Programs = Callable[..., Path]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Return a function that puts a stand-in for sbatch and squeue first on the PATH and returns sbatch's call log."""

    def make(fails: int = 0, message: str = AWAY, rows: str = "") -> Path:
        folder = tmp_path / "slurm"
        folder.mkdir()
        (folder / "sbatch").write_text(SBATCH.format(folder=folder, fails=fails, message=message))
        (folder / "squeue").write_text(SQUEUE.format(rows=rows))
        for program in folder.iterdir():
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.delenv(wrappers.FOLDER, raising=False)
        return folder / "calls"

    return make


def _submit(arguments: list[str]) -> tuple[int, str, str, list[float]]:
    waits: list[float] = []
    return *sbatch_retry.call_sbatch(arguments, waits.append), waits


def test_a_controller_that_is_away_is_asked_again_more_and_more_seldom(programs: Programs) -> None:
    calls = programs(fails=4)
    assert _submit(CALL) == (0, "77\n", "", [1, 2, 4, 8])
    assert calls.read_text().splitlines() == [" ".join(CALL)] * 5


def test_retrying_ends(programs: Programs) -> None:
    programs(fails=1000)
    code, out, err, waits = _submit(CALL)
    assert (code, out) == (1, "")
    assert AWAY in err
    assert patience.RETRY_S <= sum(waits) <= patience.RETRY_S + 60


def test_a_rejection_is_final(programs: Programs) -> None:
    calls = programs(fails=9, message="sbatch: error: invalid partition specified: nonexistent")
    code, _, err, waits = _submit(CALL)
    assert (code, waits) == (1, [])
    assert "nonexistent" in err
    assert len(calls.read_text().splitlines()) == 1


def test_a_job_whose_acceptance_was_not_heard_is_not_submitted_again(programs: Programs) -> None:
    states = {5: "RUNNING|rule_split", 6: f"COMPLETED|{CALL[4]}", 7: f"PENDING|{CALL[4]}"}
    rows = "".join(f"{job}|{state}\\n" for job, state in states.items())
    calls = programs(fails=9, message=LATE, rows=rows)
    assert _submit(CALL) == (0, "7\n", "", [1])
    assert len(calls.read_text().splitlines()) == 1


def test_what_could_not_be_found_again_is_left_to_the_caller(programs: Programs) -> None:
    calls = programs(fails=2)
    assert _submit(["job.sh"])[0] == 1
    assert len(calls.read_text().splitlines()) == 1


def test_installed_it_stands_before_the_real_one_and_passes_on(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = programs(fails=1)
    monkeypatch.setenv("PATH", os.environ["PATH"])  # restored at the end
    monkeypatch.setenv(wrappers.FOLDER, "")
    monkeypatch.setenv("SQUEUE_PARTITION", "mine")  # with it the executor would miss jobs
    for _ in range(2):
        wrappers.install_wrappers(tmp_path / "front")
    assert "SQUEUE_PARTITION" not in os.environ
    assert sorted(path.name for path in (tmp_path / "front").iterdir() if path.name != "sacct") == ["sbatch"]
    assert os.environ["PATH"].count(str(tmp_path / "front")) == 1
    done = subprocess.run(["sbatch", *CALL], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "77\n")
    assert len(calls.read_text().splitlines()) == 2


def test_a_cancelled_job_is_reported_in_a_word_that_the_executor_knows(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = programs().parent
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv(wrappers.FOLDER, "")
    (folder / "sacct").write_text("#!/bin/sh\necho '7|CANCELLED by 1000'\necho '8|RUNNING'\nexit 3\n")
    (folder / "sacct").chmod(0o755)
    wrappers.install_wrappers(tmp_path / "front")
    done = subprocess.run(["sacct", "-X"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "7|CANCELLED\n8|RUNNING\n")


def test_without_slurm_nothing_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wrappers.install_wrappers(tmp_path / "front")
    assert not (tmp_path / "front").exists()
    assert os.environ["PATH"] == str(tmp_path)

"""Parts of one evaluation, in any order, at the same time, killed and run again: one table, the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ccsd.evaluation import run as module
from ccsd.evaluation.finished_cases import FinishedCases
from ccsd.evaluation.run import evaluate_model
from ccsd.records import Identity
from preprocess.errors import InputError
from support.processes import ccsd_here, eventually

RUN, DATA = "runs/ccsd-s0", "data"
Evaluate = Callable[..., Path | None]


@pytest.fixture
def whole(evaluated_study: Path) -> dict[str, bytes]:
    """What an evaluation in one piece wrote."""
    return written(evaluated_study / "evaluation" / "ccsd-s0" / "all")


def written(out: Path) -> dict[str, bytes]:
    """Return the contents of all files but the record, which has the time in it."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "evaluation.json"]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture
def evaluate(made_study: Path, tmp_path: Path) -> Evaluate:
    def run(part: tuple[int, int] = (1, 1), **how: int) -> Path | None:
        return evaluate_model(made_study / RUN, made_study / DATA, tmp_path / "out", part=part, **how)

    return run


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_writes_the_same_bytes(
    evaluate: Evaluate, whole: dict[str, bytes], tmp_path: Path, workers: int
) -> None:
    assert evaluate(workers=workers) == tmp_path / "out" / "metrics.tsv"
    assert written(tmp_path / "out") == whole


@pytest.mark.parametrize("order", [(1, 2), (2, 1), (2, 3, 1)])
def test_parts_in_any_order_write_what_one_evaluation_does(
    evaluate: Evaluate,
    whole: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    order: tuple[int, ...],
) -> None:
    *earlier, last = order
    for number in earlier:
        if evaluate((number, len(order))) is None:
            assert "test cases are not scored yet" in capsys.readouterr().out
            assert not (tmp_path / "out" / "metrics.tsv").exists()
    assert evaluate((last, len(order))) == tmp_path / "out" / "metrics.tsv"
    assert written(tmp_path / "out") == whole
    assert evaluate((1, 2)) == tmp_path / "out" / "metrics.tsv"  # all is done


def test_a_part_computes_its_own_cases_only(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = module._read
    monkeypatch.setattr(module, "_read", lambda job, case: read.append(case.case) or original(job, case))
    evaluate((2, 2))
    assert len(read) == 1
    evaluate((2, 2))
    assert len(read) == 1
    evaluate((1, 2))
    assert len(set(read)) == len(read) == 2


def test_a_part_whose_end_was_lost_is_joined_by_any_call(
    evaluate: Evaluate, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last part was killed after its last case and before the table."""
    evaluate((1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_join", lambda *_: None)
        evaluate((2, 2))
    assert not (tmp_path / "out" / "metrics.tsv").exists()
    monkeypatch.setattr(module, "_segment", lambda *_: pytest.fail("nothing was to be computed"))
    assert evaluate((1, 2)) is not None
    assert written(tmp_path / "out") == whole


def test_two_parts_that_end_at_the_same_time(
    evaluate: Evaluate, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one wrote the table and removed what this one was about to read."""
    evaluate((1, 2))
    original = FinishedCases.read
    calls: list[str] = []

    def read(self: FinishedCases, case: str) -> object:
        calls.append(case)
        if len(calls) == 2 + 1:  # after its own case, in the middle of putting the table together
            assert evaluate((1, 2)) is not None
        return original(self, case)

    monkeypatch.setattr(FinishedCases, "read", read)
    assert evaluate((2, 2)) == tmp_path / "out" / "metrics.tsv"
    assert written(tmp_path / "out") == whole


def test_temporary_files_of_other_parts_are_left_to_them(tmp_path: Path) -> None:
    identity = Identity(cases=("a", "b.c"))
    folder = tmp_path / "predictions" / "t1"
    folder.mkdir(parents=True)
    mine, theirs = folder / ".tmp-01234567-b.c.nii.gz", folder / ".tmp-89abcdef-a.nii.gz"
    mine.touch()
    theirs.touch()
    FinishedCases(tmp_path, identity, ["b.c"])
    assert [path.name for path in folder.iterdir()] == [theirs.name]
    FinishedCases(tmp_path, identity, ["a", "b.c"])
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("part", "words"), [("0/4", "I from 1"), ("5/4", "I from 1"), ("x", "for example"),
    ("1/0", "I from 1"), ("-1/2", "for example"), ("1/2/3", "for example"), ("1", "for example")])  # fmt: skip
def test_a_part_that_there_is_not_is_rejected_before_any_work(
    made_study: Path, tmp_path: Path, part: str, words: str
) -> None:
    options = ("--model", made_study / RUN, "--data", made_study / DATA, "--out", tmp_path / "out", "--workers", 1)
    done = ccsd_here("evaluate", *options, "--part", part)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_part_of_files_has_no_meaning(tmp_path: Path) -> None:
    done = ccsd_here("evaluate", "--pred", tmp_path, "--ref", tmp_path, "--out", tmp_path / "out", "--part", "1/2")
    assert (done.returncode, "--part divides" in done.stderr) == (2, True)


def test_a_damaged_reference_is_told_by_the_worker_that_reads_it(made_study: Path, tmp_path: Path) -> None:
    data = shutil.copytree(made_study / DATA, tmp_path / "data")
    for label in data.glob("*.zarr/label/c*"):
        os.truncate(label, label.stat().st_size - 9)
    with pytest.raises(InputError, match=r"BraTS.*\.zarr, array label: damaged or truncated"):
        evaluate_model(made_study / RUN, data, tmp_path / "out", ["t1"], workers=2)


@pytest.fixture
def four_cases(made_study: Path, tmp_path: Path) -> Path:
    """The data with all four cases in the test split, so that there is time to interrupt."""
    data = shutil.copytree(made_study / DATA, tmp_path / "data")
    split = (data / "split.tsv").read_text()
    (data / "split.tsv").write_text(split.replace("\ttrain", "\ttest").replace("\tval", "\ttest"))
    return data


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_evaluation_leaves_no_process_and_is_resumed(
    made_study: Path, four_cases: Path, tmp_path: Path, how: signal.Signals
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    options = ("--model", made_study / RUN, "--data", four_cases, "--out", out, "--workers", 2)
    command = [sys.executable, "-m", "ccsd", "evaluate", *map(str, options)]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    eventually(lambda: list(out.rglob("*.nii.gz")) or started.poll() is not None, 120)
    time.sleep(random.uniform(0, 0.2))
    family = psutil.Process(started.pid).children(recursive=True)
    started.send_signal(how)
    _, said = started.communicate(timeout=30)
    assert "Traceback" not in said
    _, left = psutil.wait_procs(family, timeout=30)
    assert not left
    assert not (out / "metrics.tsv").exists()

    evaluate_model(made_study / RUN, four_cases, out)
    evaluate_model(made_study / RUN, four_cases, other)
    assert written(out) == written(other)
    assert json.loads((out / "evaluation.json").read_text())["cases"] == 4

"""The overlap of reading, segmenting and scoring: its order, its bounds, and what ends it."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccsd.errors import UsageError
from ccsd.evaluation.pipeline import overlapped
from preprocess.errors import InputError
from support.processes import eventually

CASES = [f"case-{number}" for number in range(6)]


def test_the_next_case_is_read_while_one_is_segmented_and_not_the_one_after() -> None:
    begun: list[str] = []
    next_began = {case: threading.Event() for case in CASES}

    def read(case: str) -> str:
        begun.append(case)
        next_began[case].set()
        return case

    def segment(case: str, image: str) -> str:
        assert image == case
        later = CASES[CASES.index(case) + 1 :]
        if later:
            assert next_began[later[0]].wait(10), "the next case was not read meanwhile"
        assert set(begun) == {*CASES[: CASES.index(case) + 1], *later[:1]}
        return image

    assert [case for case, _ in overlapped(CASES, read, segment, _upper, 1)] == CASES


def _upper(case: str, labels: str) -> str:
    assert case == labels
    return case.upper()


@pytest.mark.parametrize("workers", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_case_comes_out_with_its_own_rows(workers: int) -> None:
    found = dict(overlapped(CASES, str, lambda _, image: image, _upper, workers))
    assert found == {case: case.upper() for case in CASES}
    assert dict(overlapped([], str, lambda _, image: image, _upper, workers)) == {}


def _wait_for(case: str, folder: Path) -> str:
    """Score a case, which is over when a file allows it."""
    (folder / f"{case}.began").touch()
    eventually((folder / f"{case}.go").exists)
    return case


def test_cases_are_segmented_while_earlier_ones_are_scored_but_not_without_bound(tmp_path: Path) -> None:
    """With two workers that take forever, three cases wait: those being scored, and the next one."""
    segmented: list[str] = []

    def segment(case: str, _: str) -> Path:
        segmented.append(case)
        return tmp_path

    done: list[str] = []
    run = threading.Thread(
        target=lambda: done.extend(case for case, _ in overlapped(CASES, str, segment, _wait_for, 2)), daemon=True
    )
    run.start()
    eventually(lambda: len(list(tmp_path.glob("*.began"))) == 2 and len(segmented) == 3)
    time.sleep(0.3)
    assert segmented == CASES[:3]
    assert done == []

    (tmp_path / f"{CASES[1]}.go").touch()  # a case that is quick overtakes an earlier one
    eventually(lambda: done == [CASES[1]] and len(segmented) == 4)
    for case in CASES:
        (tmp_path / f"{case}.go").touch()
    run.join(20)
    assert sorted(done) == CASES


def _pid(case: str, _: str) -> int:
    return os.getpid()


def test_one_worker_is_this_process() -> None:
    assert {pid for _, pid in overlapped(CASES, str, lambda _, image: image, _pid, 1)} == {os.getpid()}
    assert os.getpid() not in {pid for _, pid in overlapped(CASES, str, lambda _, image: image, _pid, 2)}


def _fail(case: str, error: Exception) -> str:
    if case == CASES[2]:
        raise error
    return case


def _raiser(error: Exception) -> Callable[..., str]:
    return lambda case, *_: _fail(case, error)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", ["read", "segment", "score"])
@pytest.mark.parametrize(
    "error",
    [InputError("damaged"), UsageError("useless"), OSError("lost"), MemoryError("too little"), InputError(CASES[2])],
)
def test_an_error_names_the_case_once_and_earlier_cases_are_finished(
    error: Exception, stage: str, workers: int
) -> None:
    stages: dict[str, Any] = {"read": str, "segment": lambda _, image: image, "score": _upper}
    if stage == "score":
        stages |= {"segment": lambda *_: error, "score": _fail}
    else:
        stages[stage] = _raiser(error)
    finished: list[str] = []
    with pytest.raises(type(error)) as told:
        finished.extend(case for case, _ in overlapped(CASES, **stages, workers=workers))
    assert str(told.value) in (f"case {CASES[2]}: {error}", CASES[2])
    assert set(finished) <= {*CASES[:2], *CASES[3:]}
    if workers == 1:
        assert finished == CASES[:2]


def _die(case: str, _: str) -> str:
    if case == CASES[2]:
        os.kill(os.getpid(), 9)
    return case


@pytest.mark.timeout(60)
def test_a_worker_that_is_killed_is_an_error_and_no_hang() -> None:
    with pytest.raises(ChildProcessError, match=rf"cases .*{CASES[2]}.* was killed.*memory.*resume"):
        list(overlapped(CASES, str, lambda _, image: image, _die, 2))


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_ctrl_c_does_not_wait_for_what_is_being_scored(tmp_path: Path) -> None:
    """What would go on for forty seconds ends at once."""
    interrupted = iter(CASES)

    def segment(case: str, _: str) -> Path:
        if case == CASES[2]:
            eventually(lambda: len(list(tmp_path.glob("*.began"))) == 2)
            raise KeyboardInterrupt
        return tmp_path

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(overlapped(interrupted, str, segment, _wait_for, 2))
    assert time.monotonic() - began < 20

"""Stopping in time: signals, and a limit that leaves room for the next step and the last save."""

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from ccsd.training.stop import StopRequest


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR2, 75), (signal.SIGINT, 130)])
def test_signals_are_remembered(number: signal.Signals, code: int) -> None:
    stop = StopRequest()
    assert not stop.requested()
    os.kill(os.getpid(), number)
    assert stop.requested()
    assert stop.exit_code == code


def test_a_second_interrupt_ends_at_once() -> None:
    StopRequest()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_the_limit_leaves_room_for_two_of_the_longest_steps() -> None:
    now, age = time.monotonic(), time.time() - psutil.Process().create_time()
    stop = StopRequest(minutes=(age + 100) / 60)
    assert not stop.requested(now + 1)
    assert not stop.requested(now + 21)  # took 20 s, so 40 s are kept
    assert not stop.requested(now + 41)
    assert not stop.requested(now + 59)
    assert stop.requested(now + 61)
    assert stop.exit_code == 75


def test_the_limit_counts_from_the_start_of_the_process_whatever_is_done_to_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    age = time.time() - psutil.Process().create_time()
    stop = StopRequest(minutes=age / 60 + 1)
    for clock in (0.0, 1e12):
        monkeypatch.setattr("time.time", lambda clock=clock: clock)
        assert not stop.requested()
    assert stop.requested(time.monotonic() + 61)

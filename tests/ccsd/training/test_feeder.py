"""The next micro-batch is prepared while one is computed: order, memory and time, on a device that is two threads."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from ccsd.data import Batch
from ccsd.distillation.schedule import Draw
from ccsd.training.feeder import Feeder, Ready
from ccsd.training.timing import PartTimes

STEPS, PATIENCE_S = 12, 60.0


class Stream:
    """Runs one piece of work after another; whoever puts it there does not wait."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.last: Future[object] | None = None

    def put(self, work: Callable[[], object]) -> Future[object]:
        self.last = self._thread.submit(work)
        return self.last

    def finish(self) -> None:
        assert self.last is not None
        self.last.result()


class Place:
    """A mark on the side stream."""

    def __init__(self, device: "Device", done: Future[object]) -> None:
        self._device, self._done = device, done

    def wait(self) -> None:
        self._device.main.put(self._done.result)

    def synchronize(self) -> None:
        self._device.log.append(("host waits", self._done.done()))
        self._done.result()


class Device:
    """A device of two streams, of which the side one is a lane."""

    def __init__(self) -> None:
        self.main, self.side = Stream(), Stream()
        self.log: list[tuple[str, object]] = []
        self.in_lane = False
        self.handed: list[int] = []

    @contextmanager
    def open(self) -> Iterator[None]:
        self.in_lane = True
        yield
        self.in_lane = False

    def mark(self) -> Place:
        assert self.side.last is not None
        return Place(self, self.side.last)

    def hand_over(self, ready: Ready) -> None:
        self.handed.append(ready.batch.step)


class Slots:
    """Batches that are overwritten when the next one is drawn."""

    def __init__(self, steps: int) -> None:
        self.content, self.drawn, self.steps = -1, 0, steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.steps):
            self.content, self.drawn = step, self.drawn + 1
            empty = torch.zeros(0)
            yield Batch(step, empty, empty, empty, (), (), ())


def draw_of(content: Tensor) -> Draw:
    return Draw(content, content, walks=False, walked=None, from_full=False, share=1.0, ramp=1.0, score=False)


def train(device: Device, *, ahead: bool, pieces: int = 1) -> tuple[Slots, list[tuple[int, int]]]:
    """Train as `Stepper` does; return the slots, and step and content of each piece when it was computed.

    Each piece is computed until the copy of the next one is over, which would be never if that waited for it.
    """
    slots, computed = Slots(STEPS), []
    copied = [threading.Event() for _ in range(STEPS * pieces + 1)]
    copied[-1].set()
    order = iter(copied)

    def prepare(batch: Batch, rows: slice) -> Ready:
        assert device.in_lane is ahead
        content, over = torch.full((1,), -1), next(order)

        copy = device.side.put(lambda: content.fill_(slots.content))
        copy.add_done_callback(lambda _: over.set())
        if not ahead:
            device.side.finish()
        return Ready(batch, content, content, content, draw_of(content))

    lane = device if ahead else None
    feeder = Feeder(iter(slots), prepare, [slice(0, 1)] * pieces, lane, PartTimes(torch.device("cpu")))
    for number in range(STEPS * pieces):
        ready = feeder.take()

        def compute(ready: Ready = ready, following: threading.Event = copied[number + 1]) -> None:
            if ahead:
                assert following.wait(PATIENCE_S), "the next copy waits for this computation"
            computed.append((ready.batch.step, int(ready.image)))

        device.main.put(compute)
        feeder.ahead()
        if (number + 1) % pieces == 0:
            device.main.finish()  # the host reads the gradient's norm
    return slots, computed


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("ahead", [False, True])
def test_every_piece_is_computed_on_its_own_content(ahead: bool, pieces: int) -> None:
    slots, computed = train(Device(), ahead=ahead, pieces=pieces)
    assert computed == [(step, step) for step in range(STEPS) for _ in range(pieces)]
    assert slots.drawn == STEPS


def test_memory_is_handed_over_and_the_host_waits_for_no_copy_but_the_first() -> None:
    device = Device()
    train(device, ahead=True)
    assert device.handed == list(range(STEPS))
    waits = [was_done for what, was_done in device.log if what == "host waits"]
    assert len(waits) == STEPS  # before each batch but the first, and once for the one that does not come
    assert all(waits[1:])  # nothing is computed beside the first copy


def test_nothing_is_drawn_ahead_without_a_lane() -> None:
    slots = Slots(3)
    done = torch.zeros(0)
    feeder = Feeder(
        iter(slots),
        lambda batch, _: Ready(batch, done, done, done, draw_of(done)),
        [slice(0, 1)],
        None,
        PartTimes(torch.device("cpu")),
    )
    for drawn in (1, 2, 3):
        feeder.take()
        feeder.ahead()
        assert slots.drawn == drawn

"""Bring micro-batches to the device; on a GPU the next one is copied and augmented while one is computed.

Copying on a separate stream requires three things: the computation waits for the copy; the memory of a micro-batch is
not reused before its computation is done; and the host draws the next batch, which frees the memory of the current one,
only after the current one has been copied.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ccsd.config.schema import Config
from ccsd.data import Batch, augment
from ccsd.data.batch import send
from ccsd.distillation.schedule import Draw, draw_step
from ccsd.training.timing import PartTimes


@dataclass(frozen=True)
class Ready:
    """A micro-batch on the device, and the host's batch from which it was made, whose tensors may be overwritten."""

    batch: Batch
    image: Tensor
    """b x M x D x H x W float32."""
    label: Tensor
    """b x D x H x W."""
    available: Tensor
    """b x M bool."""
    draw: Draw

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors on the device."""
        return self.image, self.label, self.available, *self.draw.tensors().values()


class Mark(Protocol):
    """A point in the work of a stream."""

    def wait(self) -> None:
        """Make all further computation wait for it; the host continues."""

    def synchronize(self) -> None:
        """Make the host wait for it."""


class Lane(Protocol):
    """Where micro-batches are prepared."""

    def open(self) -> AbstractContextManager[object]:
        """Return the context in which work is put here."""

    def mark(self) -> Mark:
        """Mark the work that was put here so far."""

    def hand_over(self, ready: Ready) -> None:
        """Keep the memory of a micro-batch until the current computation is done."""


class SideStream:
    """A second stream of a GPU, beside the one that computes."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def open(self) -> AbstractContextManager[object]:
        """Put work on this stream."""
        return torch.cuda.stream(self._stream)

    def mark(self) -> Mark:
        """Mark the work so far."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def hand_over(self, ready: Ready) -> None:
        """Tell the allocator that another stream uses this memory."""
        for tensor in ready.tensors():
            tensor.record_stream(torch.cuda.current_stream(tensor.device))


class Feeder:
    """Hands out the micro-batches of all steps in order.

    Parameters
    ----------
    batches
        One for each step; a batch's tensors are valid until the next one is drawn.
    prepare
        Brings some samples of a batch to the device.
    rows
        The samples of each micro-batch of a step.
    lane
        Where to prepare ahead; None prepares on demand.
    times
        Receives the time that the host waited for batches, as `data`.
    """

    def __init__(
        self,
        batches: Iterator[Batch],
        prepare: Callable[[Batch, slice], Ready],
        rows: list[slice],
        lane: Lane | None,
        times: PartTimes,
    ) -> None:
        self._prepare, self._lane, self._times = prepare, lane, times
        self._pieces = self._pieces_of(batches, rows)
        self._copied: Mark | None = None
        self._next: Ready | None = None

    def take(self) -> Ready:
        """Return the next micro-batch, for work that is submitted to the device from now on."""
        if self._next is None:
            self._prepare_next()
        ready, self._next = self._next, None
        assert ready is not None, "more micro-batches were requested than there are steps"
        if self._lane is not None and self._copied is not None:
            self._copied.wait()
            self._lane.hand_over(ready)
        return ready

    def ahead(self) -> None:
        """Start preparing the next micro-batch, if there is a lane for it and a step left."""
        if self._lane is not None and self._next is None:
            self._prepare_next()

    def _prepare_next(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            return
        with nullcontext() if self._lane is None else self._lane.open():
            self._next = self._prepare(*piece)
        if self._lane is not None:
            self._copied = self._lane.mark()

    def _pieces_of(self, batches: Iterator[Batch], rows: list[slice]) -> Iterator[tuple[Batch, slice]]:
        while True:
            if self._copied is not None:
                self._copied.synchronize()
            with self._times.waiting("data"):
                batch = next(batches, None)
            if batch is None:
                return
            for some in rows:
                yield batch, some


def prepared(batch: Batch, rows: slice, config: Config, device: torch.device, times: PartTimes) -> Ready:
    """Copy some samples of a batch to the device, augment them, and draw what a step visits."""
    settings, samples = config.train, batch.samples[rows]
    with times.part("copy"):
        image, label = batch.image[rows].to(device, non_blocking=True), batch.label[rows].to(device, non_blocking=True)
        image, available = image.float(), send(batch.available[rows], device)
    if settings.augment:
        with times.part("augment"):
            image, label = augment(image, label, available, [(settings.seed, batch.step, i) for i in samples])
    draw = draw_step(
        config.distillation,
        config.task,
        batch.available[rows],
        seed=settings.seed,
        step=batch.step,
        total_steps=settings.steps,
        samples=samples,
    )
    return Ready(batch, image, label, available, draw.to(device))

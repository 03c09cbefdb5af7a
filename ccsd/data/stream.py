"""An endless, resumable stream of training batches, read in this process or by workers."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ccsd.data.batch import Batch, Patch, Slots
from ccsd.data.patches import Filled, PatchReader
from ccsd.errors import UsageError
from preprocess.errors import InputError
from preprocess.parallel import end_with_parent

Context = Literal["forkserver", "spawn", "fork"]

_PREFETCH = 2
_SLOTS_PER_WORKER = _PREFETCH + 1  # those read ahead, and the one in use
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory


class PatchStream(Iterator[Batch]):
    """Batches for step = start, start + 1, ... without end; `close` it, or use it in a `with` block.

    What a sample shows depends only on (seed, step, sample number): see `ccsd.data.sampling`.

    Parameters
    ----------
    reader
        Reads the patches of a step.
    workers
        Processes that read ahead; 0 reads in this one.
    start
        Step of the first batch.
    context
        How workers are started.
    pinned
        Lock the batches' memory for copies to a GPU.
    """

    def __init__(
        self,
        reader: PatchReader,
        *,
        workers: int,
        start: int = 0,
        context: Context = "forkserver",
        pinned: bool = False,
    ) -> None:
        self._reader = reader
        self._slots = Slots(_slots(workers), *_shape(reader), shared=workers > 0)
        if pinned:
            self._slots.pin()
        self._source: Iterator[Filled | InputError] | None
        if workers:
            self._source = _in_workers(self._reader, self._slots, start, workers, context)
            # This runs before Python waits for its children at exit, because workers ignore its SIGTERM.
            self._stop: Finalize[None] | None = Finalize(self, _shut_down, args=(self._source,), exitpriority=10)
        else:
            self._source = _fill_ring(self._reader, self._slots, start, stride=1, slots=range(1))
            self._stop = None

    def __next__(self) -> Batch:
        """Return the next batch; its tensors are valid until the one after is drawn."""
        if self._source is None:
            raise StopIteration
        filled = next(self._source)
        if isinstance(filled, InputError):
            self.close()
            raise filled
        step, slot, available, cases, corners = filled
        return Batch(
            step=step,
            image=self._slots.image[slot],
            label=self._slots.label[slot],
            available=torch.tensor(available),
            cases=cases,
            corners=corners,
            samples=self._reader.samples,
        )

    def close(self) -> None:
        """Stop the workers. Nothing can be drawn after that."""
        self._source = None
        if self._stop is not None:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _SlotFiller(IterableDataset[Filled | InputError]):
    """What a worker iterates over: every n-th step, read in turn into the worker's own slots.

    A worker is asked for a batch only when an older one has been taken, so it never has more than `_PREFETCH` filled
    slots beside the one in use, and three slots are enough without a signal back.
    """

    def __init__(self, reader: PatchReader, slots: Slots, start: int) -> None:
        self.reader, self.slots, self.start = reader, slots, start

    def __iter__(self) -> Iterator[Filled | InputError]:
        worker = get_worker_info()
        assert worker is not None
        slots = range(worker.id * _SLOTS_PER_WORKER, (worker.id + 1) * _SLOTS_PER_WORKER)
        return _fill_ring(self.reader, self.slots, self.start + worker.id, stride=worker.num_workers, slots=slots)


def _fill_ring(
    reader: PatchReader, slots_memory: Slots, start: int, *, stride: int, slots: range
) -> Iterator[Filled | InputError]:
    """Read every `stride`-th step into the given slots in turn; an input error is passed on and ends it."""
    step = start
    while True:
        for slot in slots:
            try:
                yield reader.fill(step, slots_memory, slot)
            except InputError as error:
                yield error
                return
            step += stride


def _in_workers(
    reader: PatchReader, slots: Slots, start: int, workers: int, context: Context
) -> Iterator[Filled | InputError]:
    loader = DataLoader(
        _SlotFiller(reader, slots, start),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_PREFETCH,
        collate_fn=_as_it_is,
        worker_init_fn=_follow_parent,
        multiprocessing_context=_context(context),
    )
    return iter(loader)


def _shut_down(source: Any) -> None:
    """Stop the workers of a loader's iterator now, even if an exception's traceback still refers to it."""
    source._shutdown_workers()  # noqa: SLF001 - the loader has no public method, and leaves it to the garbage collector


def _context(name: Context) -> BaseContext:
    context = multiprocessing.get_context(name)
    if name == "forkserver":
        context.set_forkserver_preload([__name__])  # PyTorch is imported once, not once per worker
    return context


def _as_it_is(item: Any) -> Any:
    return item


def _follow_parent(_worker: int) -> None:
    """Ignore a scheduler's warning and Ctrl-C, which the training process handles, and end when it ends.

    PyTorch's own watchdog checks the parent process, which is the fork server, and that one waits for the workers.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def check_shared_memory(reader: PatchReader, workers: int, processes: int = 1) -> None:
    """Check that the streams of all processes on this machine fit into its shared memory, before any is created.

    Otherwise each of several processes that start together would see room for its own, and the last would crash.

    Raises
    ------
    UsageError
        If they do not fit; the message says how much is needed, and what to change.
    """
    try:
        state = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return
    free = state.f_bavail * state.f_frsize
    needed = processes * _slots(workers) * Slots.bytes_each(*_shape(reader)) if workers else 0
    if needed > free:
        each = f" in each of {processes} processes" if processes > 1 else ""
        raise UsageError(
            f"{workers} workers{each} need {needed >> 20} MiB of shared memory, {_SHARED_MEMORY} has {free >> 20} MiB "
            "free; use fewer runtime.workers (0 needs none), use smaller patches, or give a container more (--shm-size)"
        )


def _slots(workers: int) -> int:
    return max(1, workers * _SLOTS_PER_WORKER)


def _shape(reader: PatchReader) -> tuple[int, int, Patch]:
    return len(reader.samples), len(reader.modalities), reader.patch

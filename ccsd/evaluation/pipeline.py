"""Read, segment and score at the same time: while one case is segmented, the next is read and others are scored."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import NoReturn, TypeVar

from ccsd.errors import USER_ERRORS
from preprocess.parallel import end_with_parent, track

Image = TypeVar("Image")
Labels = TypeVar("Labels")
Rows = TypeVar("Rows")
Item = TypeVar("Item")

_CONTEXT = multiprocessing.get_context("forkserver")


def prepare_workers() -> None:
    """Start a fork server for `worker_pool` that imports what workers need while this process continues."""
    _CONTEXT.set_forkserver_preload(["ccsd.evaluation.scoring"])
    forkserver.ensure_running()


def overlapped(
    cases: Iterable[str],
    read: Callable[[str], Image],
    segment: Callable[[str, Image], Labels],
    score: Callable[[str, Labels], Rows],
    workers: int,
) -> Iterator[tuple[str, Rows]]:
    """Yield each case with its rows as soon as it is done.

    A thread reads one case ahead, this thread segments, and other processes score. At most two images are in memory,
    and the label maps of at most `workers` + 2 cases.

    Parameters
    ----------
    cases
        Their names.
    read, segment
        Called in this process.
    score
        Called in a worker, so it must be picklable; with one worker, called in this process.
    workers
        Processes that score.

    Raises
    ------
    ChildProcessError
        If a worker is killed.
    Exception
        Whatever the three functions raise; the message of a user error names the case.
    """
    with ThreadPoolExecutor(1, "reader") as reader:
        images = _ahead(cases, read, reader)
        if workers == 1:
            for case, image in images:
                with _naming(case):
                    rows = score(case, segment(case, image))
                yield case, rows
            return
        pending: dict[Future[Rows], str] = {}
        with worker_pool(workers) as pool:
            for case, image in images:
                with _naming(case):
                    labels = segment(case, image)
                pending[pool.submit(score, case, labels)] = case
                del image, labels
                if len(pending) > workers:
                    yield from _finished(pending)
            while pending:
                yield from _finished(pending)


def _ahead(cases: Iterable[str], read: Callable[[str], Image], reader: Executor) -> Iterator[tuple[str, Image]]:
    """Yield cases with the result of `read`, while the next one is being read."""
    begun: deque[tuple[str, Future[Image]]] = deque()
    for case in cases:
        begun.append((case, reader.submit(read, case)))
        if len(begun) > 1:
            yield _result(*begun.popleft())
    while begun:
        yield _result(*begun.popleft())


def _result(case: str, future: Future[Image]) -> tuple[str, Image]:
    with _naming(case):
        return case, future.result()


def _finished(pending: dict[Future[Rows], str]) -> Iterator[tuple[str, Rows]]:
    """Wait until a pending case is scored; yield those that are done, and remove them from `pending`."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        try:
            yield _result(pending[future], future)
        except BrokenProcessPool:
            _lost(pending.values())
        del pending[future]


def _lost(cases: Iterable[str]) -> NoReturn:
    raise ChildProcessError(
        f"a process that scored one of the cases {', '.join(cases)} was killed, perhaps because it ran out of memory. "
        "Run the same command again to resume, with more memory or fewer --workers"
    ) from None


@contextmanager
def _naming(case: str) -> Iterator[None]:
    """Put the case before the message of a user error that does not name it."""
    try:
        yield
    except (*USER_ERRORS, OSError, MemoryError) as error:
        if case in str(error):
            raise
        kind = MemoryError if isinstance(error, MemoryError) else type(error)  # NumPy's takes other arguments
        raise kind(f"case {case}: {error}") from error


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes that end with this one.

    After an error, calls that have started are finished; after Ctrl-C, they are not.
    """
    prepare_workers()
    pool = ProcessPoolExecutor(workers, _CONTEXT, initializer=_follow_parent)
    try:
        yield pool
    except Exception:
        pool.shutdown(cancel_futures=True)
        raise
    except BaseException:
        # Python 3.14 has a method for that.
        for process in list((pool._processes or {}).values()):  # noqa: SLF001
            process.terminate()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def in_workers(work: Callable[[Item], Rows], items: Sequence[Item], workers: int, what: str) -> Iterator[Rows]:
    """Yield the result of `work` for each item, in order, showing progress; one worker means this process."""
    if workers <= 1:
        yield from track(map(work, items), len(items), what)
        return
    with worker_pool(workers) as pool:
        yield from track(pool.map(work, items), len(items), what)


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it ends: the pool's own pipe stays open when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()

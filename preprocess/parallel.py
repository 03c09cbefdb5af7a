"""Work on many cases: parts, worker processes that may die without affecting other cases, and progress output."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from preprocess.errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")
T = TypeVar("T")

_START_METHOD = "spawn"  # a forked child of a process with threads may hang


def select_part(cases: Sequence[T], part: tuple[int, int]) -> list[T]:
    """Return the I-th of N even, consecutive parts of the cases; I counts from 1.

    Raises
    ------
    InputError
        If there is no such part.
    """
    number, total = part
    if not 1 <= number <= total:
        raise InputError(f"--part {number}/{total}: give I/N with I from 1 to N")
    first, last = ((number + k) * len(cases) // total for k in (-1, 0))
    return list(cases[first:last])


def available_cpus() -> int:
    """Return the number of CPU cores that this process may use: its affinity or the limit of its control group."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup_limit("cpu.max")
    if quota is not None and not quota.startswith("max"):
        limit, period = quota.split()
        cores = min(cores, max(1, round(int(limit) / int(period))))
    return cores


def cgroup_limit(name: str) -> str | None:
    """Read a limit of this process' control group (version 2), or of the container's root (both versions)."""
    root = Path("/sys/fs/cgroup")
    candidates = [root / name]
    try:
        own = Path("/proc/self/cgroup").read_text().strip().rsplit(":", maxsplit=1)[-1].lstrip("/")
        candidates.insert(0, root / own / name)
    except OSError:
        pass
    for path in candidates:
        try:
            return path.read_text().strip()
        except OSError:
            continue
    return None


def given_cores() -> int:
    """Return how many cores this process may use: the limit of the system, the container or SLURM, the lowest one."""
    cores = available_cpus()
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(cores, int(given)) if given.isdecimal() and given != "0" else cores


def end_with_parent() -> None:
    """Make this worker process exit when its parent exits, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def run_parallel(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, lost: Callable[[Job], Result]
) -> Iterator[Result]:
    """Yield results as they are completed; with one worker or one job, compute them in this process.

    If a worker dies, the remaining jobs run one at a time; `lost` makes the result of a job that kills its process
    again.
    """
    if workers <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    left = dict(enumerate(jobs))
    try:
        for number, result in _run_pool(work, left, workers):
            del left[number]
            yield result
    except BrokenProcessPool:
        for number, job in left.items():
            try:
                yield from (result for _, result in _run_pool(work, {number: job}, 1))
            except BrokenProcessPool:
                yield lost(job)


def _run_pool(work: Callable[[Job], Result], jobs: dict[int, Job], workers: int) -> Iterator[tuple[int, Result]]:
    context = multiprocessing.get_context(_START_METHOD)
    initialise = _leave_interrupts_to_parent
    with ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=initialise) as pool:
        futures = {pool.submit(work, job): number for number, job in jobs.items()}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


LOG_INTERVAL_S = 10.0


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield the items and show on standard error how many of `total` are done."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=label, unit="", dynamic_ncols=True)
        return
    last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > LOG_INTERVAL_S:
            last = time.monotonic()
            print(f"{label}: {done}/{total}", file=sys.stderr, flush=True)
    print(f"{label}: {done}/{total} done", file=sys.stderr, flush=True)

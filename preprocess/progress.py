"""Progress for people: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LOG_INTERVAL_S = 10.0


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield the items while showing on standard error how many of `total` are done."""
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

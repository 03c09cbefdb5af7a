"""Time and memory of processes, and persistent workers that take turns, so that a busy machine affects all alike.

Only the standard library: the peers' environments import this file too.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
Answer = dict[str, Any]


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its living and finished descendants."""
    return sum(_cpu_of(pid) for pid in _family(os.getpid()))


def peak_mib() -> float:
    """Return the peak resident memory of this process, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def timed(action: Callable[[], object]) -> Answer:
    """Run an action and return its wall and CPU time in seconds, including descendant processes."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    action()
    return {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}


def serve(commands: Mapping[str, Callable[..., Answer]]) -> None:
    """Answer requests, one JSON object per line, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(commands[request.pop("do")](**request)), file=answers, flush=True)


class Peer:
    """A server in a separate process, with the interpreter of its own environment."""

    def __init__(
        self, python: str | Path, script: Path, *arguments: object, environment: Mapping[str, str] = {}
    ) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [str(python), str(script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **threads, **environment},
        )

    def ask(self, do: str, **options: object) -> Answer:
        """Send a request and wait for its answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps({"do": do, **options}), file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{process.args!r} ended with {process.wait()}; its messages are above")
        answer: Answer = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def take_turns(actions: Mapping[str, Callable[[], Answer]], rounds: int, seed: int = 0) -> dict[str, list[Answer]]:
    """Run every action once per round, one at a time and in a new order in each round; discard the first round."""
    found: dict[str, list[Answer]] = {name: [] for name in actions}
    rng = random.Random(seed)
    for number in range(rounds + 1):
        for name in rng.sample(sorted(actions), len(actions)):
            answer = actions[name]()
            if number:
                found[name].append(answer)
    return found


def ratio(found: Mapping[str, list[Answer]], slow: str, fast: str, key: str) -> float:
    """Return the median over the rounds of how many times as long `slow` took as `fast` in the same round."""
    return statistics.median(a[key] / b[key] for a, b in zip(found[slow], found[fast], strict=True))


def spread(found: Mapping[str, list[Answer]], slow: str, fast: str, key: str) -> tuple[float, float]:
    """Return the smallest and the largest of these ratios."""
    ratios = [a[key] / b[key] for a, b in zip(found[slow], found[fast], strict=True)]
    return min(ratios), max(ratios)


def table(rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table; the first row is the head."""
    head, *body = [[str(cell) for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """Return the processor, its number of cores and the memory."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}"


def _family(pid: int) -> list[int]:
    members = [pid]
    for member in members:
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            members += [int(child) for child in task.read_text(encoding="ascii").split()]
    return members


def _cpu_of(pid: int) -> float:
    """Return the CPU time of a process, its threads and its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS

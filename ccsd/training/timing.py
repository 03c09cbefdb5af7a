"""Measure where the time of a step goes and how much of a GPU it uses, and trace some steps."""

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ccsd.config.schema import Config
from ccsd.device import peak_tflops
from ccsd.training.distributed import Process
from ccsd.training.flops import step_tflop
from preprocess.files import complete_or_absent

COMPUTED = ("forward", "backward", "update")
"""The parts that a GPU computes one after another; copies and augmentation of the next batch run at the same time.

The time of a part runs from when its first kernel may start to the end of its last, gaps between kernels included.
"""


class PartTimes:
    """Adds up the time of the parts of a step; on a GPU with its own events, which are read once it has passed them."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._running: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the enclosed work; the name is also used for its span in a trace."""
        if not self._on_gpu:
            with self.waiting(name):
                yield
            return
        with record_function(name):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            yield
            end.record()
            self._running.append((name, start, end))

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Time the enclosed work on the host, whatever the device does meanwhile."""
        with record_function(name):
            began = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - began

    def take(self) -> dict[str, float]:
        """Return the seconds by part since the last call; what the GPU has not finished yet counts next time."""
        while self._running and self._running[0][2].query():  # type: ignore[no-untyped-call]
            name, start, end = self._running.popleft()
            self._seconds[name] += start.elapsed_time(end) / 1000
        seconds = dict(self._seconds)
        self._seconds.clear()
        return seconds


class StepTimes:
    """Adds up the steps between two records.

    Parameters
    ----------
    device
        Where the steps are computed.
    samples
        Samples of a step over all processes.
    tflop
        Floating-point operations of a step on this process's device, in 10^12; 0 if they were not counted.
    peak_tflops
        Peak of the device in 10^12 operations per second; None if unknown.
    """

    def __init__(
        self, device: torch.device, samples: int, tflop: float = 0.0, peak_tflops: float | None = None
    ) -> None:
        self.parts = PartTimes(device)
        self._on_gpu = device.type == "cuda"
        self._samples, self._tflop, self._peak = samples, tflop, peak_tflops
        self._steps, self._seconds = 0, 0.0

    def add(self, seconds: float) -> None:
        """Add one step."""
        self._steps += 1
        self._seconds += seconds

    def take(self) -> dict[str, Any]:
        """Return the means per step, and on GPUs how much of them was used; reset."""
        steps, seconds, parts = self._steps, self._seconds, self.parts.take()
        self._steps, self._seconds = 0, 0.0
        waited = parts.get("data", 0.0)
        found: dict[str, Any] = {
            "step_s": seconds / steps,
            "data_s": waited / steps,
            "data_share": waited / seconds,
            "samples_per_s": self._samples * steps / seconds,
            "parts_s": {name: part / steps for name, part in parts.items()},
        }
        if self._on_gpu:
            found["device_share"] = min(1.0, sum(parts.get(name, 0.0) for name in COMPUTED) / seconds)
        if self._tflop:
            found["tflops"] = self._tflop * steps / seconds
            if self._peak:
                found["mfu"] = self._tflop * steps / seconds / self._peak
        return found


def clock_of(config: Config, process: Process) -> StepTimes:
    """Return the clock of a training; on a GPU the first process counts a step's operations, which takes seconds."""
    batch, device = config.train.batch_size, process.device
    if device.type != "cuda" or not process.is_first:
        return StepTimes(device, batch)
    peak = None if config.train.precision == "fp32" else peak_tflops(torch.cuda.get_device_name(device))
    return StepTimes(device, batch, step_tflop(config) / process.world, peak)


class Trace:
    """Traces some steps with torch's profiler, from `START` steps after the first on, and writes one file.

    Parameters
    ----------
    path
        File for the trace, in Chrome's format, compressed.
    steps
        Number of steps; None traces nothing.
    """

    START = 5
    """The first steps compile, choose kernels and reserve memory."""

    def __init__(self, path: Path, steps: int | None, device: torch.device) -> None:
        self._path, self._left, self._before = path, steps or 0, self.START
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self._profile = profile(activities=activities) if steps else None

    def step(self) -> bool:
        """Count a step that is done; return True if it completed the trace."""
        if self._profile is None:
            return False
        if self._before:
            self._before -= 1
            if not self._before:
                self._profile.start()
            return False
        self._left -= 1
        if not self._left:
            self.close()
            return True
        return False

    def close(self) -> None:
        """Write the trace, even if it has fewer steps than requested."""
        if self._profile is None:
            return
        if not self._before:
            self._profile.stop()
            with complete_or_absent(self._path) as temporary:
                packed = temporary.with_name(temporary.name + ".json.gz")  # this ending makes the profiler compress
                self._profile.export_chrome_trace(str(packed))
                packed.rename(temporary)
        self._profile = None

"""Describe the speed of a training and its use of the device in one sentence."""

from statistics import median
from typing import Any

from ccsd.report.results import TrainingResults

_GIB = 1024
"""MiB in a GiB."""


def speed(training: TrainingResults) -> str:
    """Return the medians of the log entries, without the first one, when networks are compiled; "" without entries."""
    entries = [event for event in training.of_kind("train") if "step_s" in event]
    entries = entries[1:] or entries
    if not entries:
        return ""
    found = [_time(entries)]
    if rate := _median(entries, "tflops"):
        share = _median(entries, "mfu")
        found.append(f"{rate:.1f} TFLOP/s{'' if share is None else f', {share:.1%} of the peak of the GPU'}")
    if share := _median(entries, "device_share"):
        found.append(f"forward pass, backward pass or update ran on the GPU for {share:.0%} of the time")
    if memory := _median(entries, "memory_mb"):
        reserved = _median(entries, "memory_reserved_mb")
        found.append(
            f"at most {memory / _GIB:.1f} GiB of memory"
            + ("" if reserved is None else f" in tensors, {reserved / _GIB:.1f} GiB reserved")
        )
    return f"{'; '.join(found)}."


def _time(entries: list[dict[str, Any]]) -> str:
    step = _median(entries, "step_s") or 0.0
    rate = _median(entries, "samples_per_s") or 0.0
    names = list(dict.fromkeys(name for entry in entries for name in entry.get("parts_s", {})))
    parts = {name: median(entry.get("parts_s", {}).get(name, 0.0) for entry in entries) for name in names}
    shares = [f"{name} {part / step:.0%}" for name, part in sorted(parts.items(), key=lambda i: -i[1]) if step]
    return f"A step took {step:.2g} s, {rate:.3g} samples per second" + (f" ({', '.join(shares)})" if shares else "")


def _median(entries: list[dict[str, Any]], name: str) -> float | None:
    values = [float(entry[name]) for entry in entries if name in entry]
    return median(values) if values else None

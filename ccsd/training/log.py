"""Report a training: means over steps are written to metrics.jsonl and shown in the terminal and by sinks."""

import json
import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ccsd.records import read_events
from ccsd.study import EVENTS, OVERLAYS
from ccsd.training.distributed import Process
from ccsd.training.sinks import Sinks
from preprocess.files import complete_or_absent, write_text
from preprocess.pictures import Picture, png

HEARTBEAT_S = 15.0

MIB = 2**20

NO_TERMS = ("removed", "scored")
"""Outputs of an objective that are not terms."""
MOST_PATHS = 64
"""Maximum orders of removal in one record: all orders of four modalities; of more, only the most frequent ones."""


class TrainingLog:
    """Appends events to metrics.jsonl and shows them. Used by the first process only."""

    def __init__(self, run: Path, start: int, total: int, sinks: Sequence[str] = ()) -> None:
        run.mkdir(parents=True, exist_ok=True)
        _forget_after(run / EVENTS, start)
        self._file = (run / EVENTS).open("a", encoding="utf-8", buffering=1)
        self._sinks = Sinks(sinks, run, start)
        self._pictures = run / OVERLAYS
        self._bar = tqdm(initial=start, total=total, desc="train", unit="step") if sys.stderr.isatty() else None
        self._total = total
        self._last_line = 0.0

    def add(self, event: str, step: int, **values: Any) -> None:
        """Append one event; nested mappings of numbers become one curve each."""
        self._file.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        self._sinks.scalars(dict(_flatten(event, values)), step)

    def picture(self, step: int, picture: Picture) -> None:
        """Keep a picture as RUN/overlays/step-*.png and show it."""
        with complete_or_absent(self._pictures / f"step-{step:08d}.png") as temporary:
            temporary.write_bytes(png(picture))
        self._sinks.picture("validation/overlay", picture, step)

    def progress(self, step: int, loss: float, step_s: float) -> None:
        """Move the bar on a terminal; in a log, print a line now and then."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix(loss=f"{loss:.3f}")
            return
        now = time.monotonic()
        if now - self._last_line > HEARTBEAT_S or step == self._total:
            self._last_line = now
            left = (self._total - step) * step_s
            print(
                f"step {step}/{self._total}  loss {loss:.3f}  {step_s:.2f} s/step  {_duration(left)} left", flush=True
            )

    def close(self) -> None:
        """Flush and close everything."""
        self._file.close()
        self._sinks.close()
        if self._bar is not None:
            self._bar.close()


def _forget_after(path: Path, step: int) -> None:
    """Drop what an interrupted run recorded after the checkpoint to resume from, or everything if there is none."""
    if path.exists():
        kept = [event for event in read_events(path.parent) if step and event["step"] <= step]
        write_text(path, "".join(json.dumps(event) + "\n" for event in kept))


def _flatten(prefix: str, values: dict[str, Any]) -> list[tuple[str, float]]:
    flat: list[tuple[str, float]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            flat += _flatten(f"{prefix}/{key}", value)
        elif isinstance(value, int | float):
            flat.append((f"{prefix}/{key}", float(value)))
    return flat


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class StepMeans:
    """Sums on the device, without waiting for it, until the means are taken.

    A path is a number with one digit per step: 0 if nothing was removed, 1 + m if modality m was. There are too many
    possible paths for a counter each, so the paths walked are kept. With 16 modalities the numbers are below 2^63.
    """

    def __init__(self, device: torch.device, modalities: Sequence[str]) -> None:
        self._modalities = tuple(modalities)
        self._device = device
        self._terms: Tensor | None = None
        self._of: tuple[str, ...] = ()
        """Names of the terms."""
        self._paths: list[Tensor] = []

    def add(self, outputs: dict[str, Tensor], weight: float = 1.0) -> None:
        """Add a micro-batch's terms (scalars) and `removed` (steps x samples, -1 for none); skip weight 0."""
        if self._terms is None:
            self._of = tuple(name for name in outputs if name not in NO_TERMS)
            self._terms = torch.zeros(len(self._of) + 1, device=self._device)
        if not weight:
            return
        self._terms[:-1] += weight * torch.stack([outputs[name].detach().float() for name in self._of])
        self._terms[-1] += weight
        removed = outputs["removed"]
        if len(removed):
            digits = (len(self._modalities) + 1) ** torch.arange(len(removed), device=removed.device)
            self._paths.append(((removed + 1) * digits[:, None]).sum(0))

    def take(self, process: Process) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Return mean terms and removal shares since the last time; every process must call this.

        Removal is `{"first": {modality: share}, "paths": {"t1ce>flair>t2": share}}`, empty without DMCD.
        """
        assert self._terms is not None, "asked before the first step"
        *sums, count = process.sum(self._terms).tolist()
        counted = Counter(sorted(self._walked(process)))
        self._terms.zero_()
        self._paths.clear()
        terms = {name: total / count for name, total in zip(self._of, sums, strict=True)}
        return terms, _removal(self._modalities, {self._names(code): n for code, n in counted.items() if code})

    def _walked(self, process: Process) -> list[int]:
        """Return the paths of all processes, which may have walked different numbers of them."""
        own: list[int] = torch.cat(self._paths).tolist() if self._paths else []
        return [code for codes in process.gather(own) for code in codes]

    def _names(self, code: int) -> tuple[str, ...]:
        names = []
        while code:
            code, digit = divmod(code, len(self._modalities) + 1)
            names.append(self._modalities[digit - 1])
        return tuple(names)


def _removal(modalities: Sequence[str], paths: dict[tuple[str, ...], int]) -> dict[str, dict[str, float]]:
    total = sum(paths.values())
    if not total:
        return {}
    first = {m: sum(n for path, n in paths.items() if path[0] == m) / total for m in modalities}
    ranked = sorted(paths.items(), key=lambda item: -item[1])[:MOST_PATHS]
    return {"first": first, "paths": {">".join(path): n / total for path, n in ranked}}


class GradientNorms:
    """Collects the gradient norms between two records; they are the same on every process."""

    def __init__(self) -> None:
        self._norms: list[float] = []

    def add(self, norm: float) -> None:
        """Add one step's norm; one that is not finite means that the step was skipped."""
        self._norms.append(norm)

    def take(self) -> dict[str, float]:
        """Return the mean of the finite norms, if there are any, and the number of skipped steps; reset."""
        finite = [norm for norm in self._norms if math.isfinite(norm)]
        skipped = len(self._norms) - len(finite)
        self._norms.clear()
        return {**({"grad_norm": math.fsum(finite) / len(finite)} if finite else {}), "skipped": skipped}


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return the peak memory so far in MiB: allocated and reserved on the GPU, or resident without a GPU."""
    if device.type == "cuda":
        allocated, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"memory_mb": allocated / MIB, "memory_reserved_mb": reserved / MIB}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB}

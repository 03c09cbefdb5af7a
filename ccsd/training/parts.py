"""The files within a checkpoint: each process writes what it owns, any number of processes reads what it needs.

    part-00000-of-00002.safetensors     weight/NAME, exp_avg/NAME, exp_avg_sq/NAME: runs of elements, flattened
    part-00001-of-00002.safetensors     metadata: where each run begins in its parameter, and AdamW's count of steps

Whole parameters are put together from their runs by name and position, so neither the number of processes nor the
ZeRO stage that wrote them matters. No pickle is involved.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ccsd.errors import UsageError
from ccsd.model.weights import save_tensors
from ccsd.training.distributed import Process
from ccsd.training.zero_shards import MOMENTS, owned, state_of

WEIGHT = "weight"
BUFFER = "buffer"
ABOUT = "ccsd"


def part_name(rank: int, world: int) -> str:
    """Return the file name of one process's part."""
    return f"part-{rank:05d}-of-{world:05d}.safetensors"


def write_part(engine: Any, folder: Path, process: Process) -> None:
    """Write what this process owns, down to the disk.

    Raises
    ------
    OSError, SafetensorError
        If it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    runs: dict[str, tuple[int, int]] = {}
    everything_everywhere = engine.zero_optimization_stage() == 0
    for shard in [] if everything_everywhere and not process.is_first else owned(engine):
        state = state_of(engine, shard)
        runs[shard.name] = (shard.start, int(state["step"].item()))
        tensors[f"{WEIGHT}/{shard.name}"] = shard.of(shard.flat)
        tensors |= {f"{key}/{shard.name}": shard.of(state[key]) for key in MOMENTS}
    if process.is_first:
        tensors |= {f"{BUFFER}/{name}": value for name, value in engine.module.named_buffers()}
    # Views of one flat tensor: safetensors wants memory of their own.
    whole = {name: value.detach().cpu().clone() for name, value in tensors.items()}
    path = folder / part_name(process.rank, process.world)
    save_tensors(path, whole, {ABOUT: json.dumps(runs, sort_keys=True)})
    with path.open("rb") as file:
        os.fsync(file.fileno())


@dataclass(frozen=True)
class _Run:
    file: Any
    start: int
    numel: int
    step: int


class Parts:
    """All parts of one checkpoint, open for reading."""

    def __init__(self, folder: Path, world: int) -> None:
        self.folder = folder
        self._open = ExitStack()
        self._runs: dict[str, list[_Run]] = {}
        self._first: Any = None
        try:
            for rank in range(world):
                self._add(folder / part_name(rank, world))
        except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            self._open.close()
            raise self.damaged(str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._open.close()

    def damaged(self, why: str) -> UsageError:
        """Return the error for a checkpoint that cannot be used."""
        return UsageError(
            f"{self.folder}: the checkpoint is damaged ({why}); remove this folder, and the same command resumes from "
            "the checkpoint before it"
        )

    def load_weights(self, module: torch.nn.Module) -> None:
        """Fill a module that belongs to no engine yet with the weights and buffers."""
        state = {}
        for name, parameter in module.named_parameters():
            whole = torch.empty(parameter.numel())
            self._fill(WEIGHT, name, 0, whole)
            state[name] = whole.view(parameter.shape)
        try:
            state |= {name: self._first.get_tensor(f"{BUFFER}/{name}") for name, _ in module.named_buffers()}
            module.load_state_dict(state)
        except (SafetensorError, RuntimeError) as error:
            raise self.damaged(str(error)) from None

    def load_optimizer(self, engine: Any) -> None:
        """Fill the optimizer's state that this process owns."""
        for shard in owned(engine):
            state = state_of(engine, shard)
            for key in MOMENTS:
                run = torch.empty(shard.numel)
                self._fill(key, shard.name, shard.start, run)
                shard.of(state[key]).copy_(run)
            state["step"].fill_(max(run.step for run in self._runs[shard.name]))

    def _add(self, path: Path) -> None:
        file = self._open.enter_context(safe_open(path, framework="pt"))
        self._first = self._first or file
        for name, (start, step) in json.loads(file.metadata()[ABOUT]).items():
            numel = file.get_slice(f"{WEIGHT}/{name}").get_shape()[0]
            if not (isinstance(start, int) and isinstance(step, int)):
                raise TypeError(f"{name} begins at {start!r}")
            self._runs.setdefault(name, []).append(_Run(file, start, numel, step))

    def _fill(self, kind: str, name: str, start: int, out: Tensor) -> None:
        """Copy elements start, start + 1, ... of a flattened parameter into `out`, from wherever they lie."""
        filled = 0
        for run, begin, end in self._overlaps(name, start, start + out.numel()):
            try:
                values = run.file.get_slice(f"{kind}/{name}")[begin - run.start : end - run.start]
                out[begin - start : end - start] = values
            except (SafetensorError, RuntimeError, TypeError) as error:
                raise self.damaged(f"{name}: {error}") from None
            filled += end - begin
        if filled != out.numel():
            raise self.damaged(f"{name} is not complete")

    def _overlaps(self, name: str, start: int, end: int) -> Iterator[tuple[_Run, int, int]]:
        for run in self._runs.get(name, []):
            low, high = max(start, run.start), min(end, run.start + run.numel)
            if low < high:
                yield run, low, high

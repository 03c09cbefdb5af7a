"""The elements that each process owns under every ZeRO stage, and the checkpoint files that hold them.

Stage 0 keeps everything everywhere. Stages 1 and 2 lay the parameters end to end and cut them into one flat tensor per
process; stage 3 cuts every parameter separately. Here all stages look the same: consecutive elements of a named
parameter at an offset in a flat tensor. Reading them needs no communication.

In a checkpoint each process writes what it owns, and any number of processes reads what it needs:

    part-00000-of-00002.safetensors     weight/NAME, exp_avg/NAME, exp_avg_sq/NAME: consecutive elements, flattened
    part-00001-of-00002.safetensors     metadata: which element each begins with, and the optimizer's count of steps

SGD has momentum_buffer/NAME instead, and a moving average of the weights adds ema/NAME.

Parameters are assembled by name and position, so neither the number of processes nor the ZeRO stage that wrote them
matters. No pickle is involved.
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

MOMENTS = {torch.optim.AdamW: ("exp_avg", "exp_avg_sq"), torch.optim.SGD: ("momentum_buffer",)}
"""What an optimizer keeps for each element."""
EMA = "ema"
"""The moving average of the weights, which is kept beside these."""

WEIGHT = "weight"
BUFFER = "buffer"
ABOUT = "ccsd"


@dataclass(frozen=True)
class Shard:
    """Consecutive elements of one parameter, held by this process."""

    name: str
    start: int
    """First element of the flattened parameter."""
    numel: int
    flat: Tensor
    """The float32 tensor that the optimizer updates, and the key of the optimizer's state."""
    offset: int
    """Where the piece begins in `flat`."""

    def of(self, values: Tensor) -> Tensor:
        """Return the piece within a tensor shaped like `flat`, as a view."""
        return values.detach().view(-1).narrow(0, self.offset, self.numel)


def owned(engine: Any) -> list[Shard]:
    """Return what this process owns; over all processes of stages 1 to 3 that is every element once."""
    by_stage = {0: _replicated, 1: _cut_end_to_end, 2: _cut_end_to_end, 3: _cut_one_by_one}
    named = [(name, p) for name, p in engine.module.named_parameters() if p.requires_grad]
    return [shard for shard in by_stage[engine.zero_optimization_stage()](engine, named) if shard.numel > 0]


def torch_optimizer(engine: Any) -> torch.optim.Optimizer:
    """Return the optimizer that was handed to DeepSpeed, which wraps it when it shards."""
    optimizer = engine.optimizer
    inner: torch.optim.Optimizer = optimizer.optimizer if engine.zero_optimization_stage() else optimizer
    return inner


def average_kept(engine: Any) -> float:
    """Return the share of the weights' moving average that a step keeps; 0 without an average."""
    return float(torch_optimizer(engine).param_groups[0][EMA])


def kept_of_each_element(engine: Any) -> tuple[str, ...]:
    """Return the names of the tensors that are kept beside the weights."""
    return (*MOMENTS[type(torch_optimizer(engine))], *([EMA] if average_kept(engine) else []))


def state_of(engine: Any, shard: Shard) -> dict[str, Tensor]:
    """Return the optimizer's state tensors that contain the shard; create them if no step was taken yet."""
    optimizer = torch_optimizer(engine)
    state: dict[str, Tensor] = optimizer.state[shard.flat]
    if not state and isinstance(optimizer, torch.optim.AdamW):
        where = shard.flat.device if optimizer.defaults["fused"] else None  # a fused optimizer counts on the device
        state["step"] = torch.zeros((), dtype=torch.float32, device=where)
    for key in kept_of_each_element(engine):
        if state.get(key) is None:
            state[key] = shard.flat.detach().clone() if key == EMA else torch.zeros_like(shard.flat)
    return state


def optimizer_bytes(engine: Any) -> int:
    """Return how many bytes of optimizer state this process holds."""
    states = torch_optimizer(engine).state.values()
    kept = [state[key] for state in states for key in kept_of_each_element(engine) if state.get(key) is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in kept)


def parameter_bytes(engine: Any) -> int:
    """Return how many bytes of the network's weights this process holds between steps."""
    parameters = engine.module.parameters()
    held = (getattr(p, "ds_tensor", p) if p.numel() == 0 else p for p in parameters)
    return sum(p.numel() * p.element_size() for p in held)


def _replicated(_engine: Any, named: list[tuple[str, Any]]) -> Iterator[Shard]:
    for name, parameter in named:
        yield Shard(name, 0, parameter.numel(), parameter, 0)


def _cut_end_to_end(engine: Any, named: list[tuple[str, Any]]) -> Iterator[Shard]:
    flats = engine.optimizer.single_partition_of_fp32_groups
    for name, parameter in named:
        here = parameter._hp_mapping  # noqa: SLF001 - DeepSpeed's map from parameters to its flat tensors
        if here is not None:
            there = here.hp_fragment_address
            yield Shard(name, here.lp_fragment_address.start, there.numel, flats[here.param_group_index], there.start)


def _cut_one_by_one(engine: Any, named: list[tuple[str, Any]]) -> Iterator[Shard]:
    optimizer = engine.optimizer
    for name, parameter in named:
        group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
        start = size * optimizer._get_param_partition_rank(parameter)  # noqa: SLF001 - as DeepSpeed's own accessors do
        # The last process's part is padded to the size of the others.
        yield Shard(name, start, min(size, parameter.ds_numel - start), _flat(optimizer, group), offset)


def _flat(optimizer: Any, group: int) -> Tensor:
    flat: Tensor = optimizer.fp32_partitioned_groups_flat[group]
    return flat


def checkpoint_file_name(rank: int, world: int) -> str:
    """Return the file name of one process's part."""
    return f"part-{rank:05d}-of-{world:05d}.safetensors"


def write_checkpoint_file(engine: Any, folder: Path, process: Process) -> None:
    """Write what this process owns, and flush it to disk.

    Raises
    ------
    OSError, SafetensorError
        If it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    pieces: dict[str, tuple[int, int]] = {}
    everything_everywhere = engine.zero_optimization_stage() == 0
    for shard in [] if everything_everywhere and not process.is_first else owned(engine):
        state = state_of(engine, shard)
        pieces[shard.name] = (shard.start, int(state["step"].item()) if "step" in state else 0)
        tensors[f"{WEIGHT}/{shard.name}"] = shard.of(shard.flat)
        tensors |= {f"{key}/{shard.name}": shard.of(state[key]) for key in kept_of_each_element(engine)}
    if process.is_first:
        tensors |= {f"{BUFFER}/{name}": value for name, value in engine.module.named_buffers()}
    # These are views of one flat tensor; safetensors requires separate memory.
    whole = {name: value.detach().cpu().clone() for name, value in tensors.items()}
    path = folder / checkpoint_file_name(process.rank, process.world)
    save_tensors(path, whole, {ABOUT: json.dumps(pieces, sort_keys=True)})
    with path.open("rb") as file:
        os.fsync(file.fileno())


@dataclass(frozen=True)
class _Piece:
    file: Any
    start: int
    numel: int
    step: int


class CheckpointFiles:
    """All parts of one checkpoint, open for reading."""

    def __init__(self, folder: Path, world: int) -> None:
        self.folder = folder
        self._open = ExitStack()
        self._pieces: dict[str, list[_Piece]] = {}
        self._first: Any = None
        try:
            for rank in range(world):
                self._add(folder / checkpoint_file_name(rank, world))
        except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            self._open.close()
            raise self.damaged(str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._open.close()

    def damaged(self, why: str) -> UsageError:
        """Return the error for a checkpoint that cannot be used."""
        return UsageError(
            f"{self.folder}: the checkpoint is damaged ({why}); remove this folder, then run the same command again "
            "to resume from the one before it"
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
            for key in kept_of_each_element(engine):
                piece = torch.empty(shard.numel)
                self._fill(key, shard.name, shard.start, piece)
                shard.of(state[key]).copy_(piece)
            if "step" in state:
                state["step"].fill_(max(piece.step for piece in self._pieces[shard.name]))

    def _add(self, path: Path) -> None:
        file = self._open.enter_context(safe_open(path, framework="pt"))
        self._first = self._first or file
        for name, (start, step) in json.loads(file.metadata()[ABOUT]).items():
            numel = file.get_slice(f"{WEIGHT}/{name}").get_shape()[0]
            self._pieces.setdefault(name, []).append(_Piece(file, start, numel, step))

    def _fill(self, kind: str, name: str, start: int, out: Tensor) -> None:
        """Copy elements start, start + 1, ... of a flattened parameter into `out`, from the parts that have them."""
        filled = 0
        for piece, begin, end in self._overlaps(name, start, start + out.numel()):
            try:
                values = piece.file.get_slice(f"{kind}/{name}")[begin - piece.start : end - piece.start]
                out[begin - start : end - start] = values
            except (SafetensorError, RuntimeError, TypeError) as error:
                raise self.damaged(f"{name}: {error}") from None
            filled += end - begin
        if filled != out.numel():
            raise self.damaged(f"{name} is not complete")

    def _overlaps(self, name: str, start: int, end: int) -> Iterator[tuple[_Piece, int, int]]:
        for piece in self._pieces.get(name, []):
            low, high = max(start, piece.start), min(end, piece.start + piece.numel)
            if low < high:
                yield piece, low, high

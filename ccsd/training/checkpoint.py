"""Save checkpoints, each of which is either complete or absent, and find the one to resume from.

    checkpoints/step-00000100/   weights and optimizer state, one part per process (ccsd.training.zero_shards)
        checkpoint.json          what it was made with
    checkpoints/.step-00000100   the same while it is being written

All processes write into the hidden folder. Once every file is on disk, the first process renames the folder, then
removes folders that are no longer needed. A process that is killed before that leaves the earlier checkpoints
unchanged. A training resumes from the checkpoint with the highest step.
"""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter
from safetensors import SafetensorError

from ccsd.errors import TrainingError, UsageError
from ccsd.study import BEST, CHECKPOINTS
from ccsd.training.distributed import Process
from ccsd.training.zero_shards import write_checkpoint_file
from preprocess.files import remove, sync_entry

META = "checkpoint.json"


@dataclass(frozen=True)
class CheckpointMeta:
    """The description of a checkpoint."""

    step: NonNegativeInt
    world: PositiveInt
    zero_stage: NonNegativeInt
    science: str
    wall_s: NonNegativeFloat
    loss_scale: PositiveFloat | None = None
    """Loss scale of float16; `good_steps` counts the steps since it last changed."""
    good_steps: NonNegativeInt = 0
    plugins: tuple[str, ...] = ()
    """The network and the objective in words, if they are plugins."""

    @property
    def tag(self) -> str:
        """Name of the checkpoint's folder."""
        return f"step-{self.step:08d}"

    def describe_resume(self, process: Process, zero_stage: int, plugins: tuple[str, ...] = ()) -> str:
        """Return the message on resuming."""
        text = f"resuming from step {self.step}"
        if plugins != self.plugins:
            text += f"; note: so far with {', '.join(self.plugins)}, from now on with {', '.join(plugins)}"
        if (self.world, self.zero_stage) == (process.world, zero_stage):
            return text
        return (
            f"{text}; saved by {_processes(self.world)} with ZeRO stage {self.zero_stage}, "
            f"now sharded over {_processes(process.world)} with stage {zero_stage}"
        )


def save(engine: Any, run: Path, meta: CheckpointMeta, process: Process, keep_last: int) -> None:
    """Save together with all other processes, then drop old checkpoints; every process must call this.

    Raises
    ------
    TrainingError
        On every process, if one of them could not write; earlier checkpoints are unchanged.
    """
    folder = run / CHECKPOINTS
    hidden = folder / f".{meta.tag}"
    with _on_all(process, meta, folder):
        _begin(hidden, process)
    with _on_all(process, meta, folder):
        write_checkpoint_file(engine, hidden, process)
    with _on_all(process, meta, folder):
        _complete(hidden, meta, process)
    if process.is_first:
        _drop_old(folder, keep_last)


def latest(run: Path) -> CheckpointMeta | None:
    """Return the checkpoint to resume from, None if there is none.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    tags = sorted(path for path in (run / CHECKPOINTS).glob("step-*") if path.is_dir())
    if not tags:
        return None
    try:
        return TypeAdapter(CheckpointMeta).validate_json((tags[-1] / META).read_bytes())
    except (OSError, ValueError):
        raise UsageError(
            f"{tags[-1]}: not a checkpoint of this program ({META} is missing or damaged); remove this folder, and "
            "run the same command again to resume from the one before it"
        ) from None


def to_resume(run: Path, sciences: Sequence[str]) -> CheckpointMeta | None:
    """Return the checkpoint to resume from, None for a new training. For one process only.

    Checkpoints of other settings or data are set aside; those of one of the digests `sciences` that were set aside
    earlier are taken back.
    """
    found = latest(run)
    if found is not None and found.science not in sciences:
        aside = _set_aside(run, found)
        found = _take_back(run, sciences)
        what = "starting a new training" if found is None else "continuing with those that were moved away before"
        print(f"the checkpoints here belong to other settings or data; moved to {aside}; {what}")
    if found is None:
        (run / CHECKPOINTS / BEST).unlink(missing_ok=True)  # of a training whose checkpoints were deleted
    return found


def _set_aside(run: Path, meta: CheckpointMeta) -> Path:
    """Move the checkpoints of another training out of the way, so that nothing is lost."""
    name = f"{CHECKPOINTS}-{meta.science}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    aside = next(path for path in (run / name for name in names) if not path.exists())
    (run / CHECKPOINTS).rename(aside)
    return aside


def _take_back(run: Path, sciences: Sequence[str]) -> CheckpointMeta | None:
    for science in sciences:
        if (aside := run / f"{CHECKPOINTS}-{science}").is_dir():
            aside.rename(run / CHECKPOINTS)
            return latest(run)
    return None


def _begin(hidden: Path, process: Process) -> None:
    if process.is_first:
        for left_over in hidden.parent.glob(".step-*"):
            remove(left_over)
        hidden.mkdir(parents=True)


def _complete(hidden: Path, meta: CheckpointMeta, process: Process) -> None:
    if not process.is_first:
        return
    with (hidden / META).open("w", encoding="utf-8") as file:
        json.dump(asdict(meta), file)
        file.flush()
        os.fsync(file.fileno())
    sync_entry(hidden)
    final = hidden.with_name(meta.tag)
    remove(final)
    hidden.rename(final)
    sync_entry(final.parent)


@contextmanager
def _on_all(process: Process, meta: CheckpointMeta, folder: Path) -> Iterator[None]:
    """Do one part of saving on every process; if it fails on one of them, fail on all."""
    problem = None
    try:
        yield
    except (OSError, SafetensorError) as error:
        problem = str(error)
    found = [f"process {rank}: {text}" for rank, text in enumerate(process.gather(problem)) if text is not None]
    if not found:
        return
    if process.is_first:
        with suppress(OSError):
            remove(folder / f".{meta.tag}")
    raise TrainingError(
        f"{folder}: the checkpoint of step {meta.step} could not be saved ({found[0]}). Earlier checkpoints are "
        "unchanged; free some space, then run the same command again to resume from the last one"
    )


def _drop_old(folder: Path, keep_last: int) -> None:
    tags = sorted(path for path in folder.glob("step-*") if path.is_dir())
    for path in tags[:-keep_last]:
        # Renamed first: a removal that is interrupted must not leave half a checkpoint under a valid name.
        path.rename(path.with_name(f".{path.name}"))
        remove(path.with_name(f".{path.name}"))


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def report_full_disk(run: Path) -> Iterator[None]:
    """Turn an error about space into one message; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise TrainingError(
            f"{error.filename or run}: cannot be written ({error.strerror}); free some space, then run the "
            "same command again to resume from the last checkpoint"
        ) from None

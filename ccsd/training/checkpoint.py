"""Checkpoints that are complete or absent, and the way back from them.

    checkpoints/step-00000100/   DeepSpeed's files: weights, optimizer state, one part per process
    checkpoints/latest.json      which of them to resume from, and what it was made with

All processes save together into a new folder; only when every file is on the disk does the first process move the
pointer, by a rename, and remove folders that are no longer needed. What is killed before that leaves the old pointer.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ccsd.config.schema import Config
from ccsd.errors import UsageError
from ccsd.training.process import Process
from preprocess.files import remove, sync, write_text

FOLDER = "checkpoints"
POINTER = "latest.json"
NOT_SCIENCE = {"workers", "checkpoint_every", "keep_last", "decode_batch"}
"""Settings of `train` that do not change what is learnt: a run may be resumed with other values."""


@dataclass(frozen=True)
class Mark:
    """What `latest.json` says of a checkpoint."""

    step: int
    world: int
    zero_stage: int
    science: str
    wall_s: float

    @property
    def tag(self) -> str:
        """Name of the checkpoint's folder."""
        return f"step-{self.step:08d}"


def science_digest(config: Config, split_hash: str) -> str:
    """Return a digest of all that decides what a training learns; a checkpoint serves only the same digest."""
    sections = config.model_dump(mode="json", include={"model", "distillation", "train"})
    for name in NOT_SCIENCE:
        del sections["train"][name]
    text = json.dumps([sections, split_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save(engine: Any, run: Path, mark: Mark, process: Process, keep_last: int) -> None:
    """Save together with all other processes, then move the pointer and drop old checkpoints."""
    folder = run / FOLDER
    if process.is_first:
        remove(folder / mark.tag)
    process.wait_for_all()
    engine.save_checkpoint(str(folder), tag=mark.tag, save_latest=False)
    process.wait_for_all()
    if process.is_first:
        sync(folder / mark.tag)
        write_text(folder / POINTER, json.dumps(asdict(mark)))
        _drop_old(folder, keep_last)
    process.wait_for_all()


def latest(run: Path) -> Mark | None:
    """Return what the pointer says, None where there is no checkpoint.

    Raises
    ------
    UsageError
        If the pointer or the folder that it names is damaged.
    """
    path = run / FOLDER / POINTER
    if not path.exists():
        return None
    try:
        mark = Mark(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise UsageError(f"{path}: not a checkpoint pointer; remove {path.parent} to train from the start") from None
    if not (path.parent / mark.tag).is_dir():
        raise UsageError(f"{path} names {mark.tag}, which is missing; remove {path.parent} to train from the start")
    return mark


def restore(engine: Any, run: Path, mark: Mark, process: Process) -> None:
    """Load weights and optimizer state of a checkpoint into the engine, together with all other processes."""
    if (mark.world, mark.zero_stage) != (process.world, engine.zero_optimization_stage()):
        raise UsageError(
            f"{run / FOLDER}: the checkpoint was made by {mark.world} processes with ZeRO stage {mark.zero_stage}; "
            f"this run has {process.world} and stage {engine.zero_optimization_stage()}. "
            "Resume with the same, or remove the folder to train from the start"
        )
    engine.load_checkpoint(str(run / FOLDER), tag=mark.tag)


def set_aside(run: Path, mark: Mark) -> Path:
    """Move the checkpoints of another configuration out of the way, so that nothing is lost."""
    aside = run / f"{FOLDER}-{mark.science}"
    remove(aside)
    (run / FOLDER).rename(aside)
    return aside


def _drop_old(folder: Path, keep_last: int) -> None:
    tags = sorted(path for path in folder.glob("step-*") if path.is_dir())
    for path in tags[:-keep_last]:
        remove(path)

"""A trained model in the folder of a run or in a packed file. This module does not need torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ccsd.config.schema import Config
from ccsd.records import Calibration, RunRecord
from ccsd.study import WEIGHTS

BLOCK = 1 << 20


@dataclass(frozen=True)
class Weights:
    """Where weights are stored: in a separate file, or in part of a packed file."""

    path: Path
    start: int = 0
    """First byte."""
    size: int | None = None
    """Bytes in a packed file; None: the whole file."""
    expected: str = ""
    """SHA-256 according to the list in a packed file."""

    def sha256(self) -> str:
        """Return the SHA-256 of the bytes, in hexadecimal."""
        return part_hash(self.path, self.start, self.size)


@dataclass(frozen=True)
class SavedModel:
    """A finished training on disk, whose weights are not read yet."""

    where: str
    """Its name in messages: its folder, or the packed file as the user named it."""
    label: str
    """Its name in records: the folder of a run, or the name in a packed file, never the file's path."""
    record: RunRecord
    weights: Weights
    folder: Path | None = None
    """Folder of the run; None for a packed model."""
    calibration: Calibration | None = None
    """That of all models in a packed file together; that of a run is in its folder."""

    @cached_property
    def config(self) -> Config:
        """The configuration of the training."""
        return self.record.settings(self.where)

    @classmethod
    def of_run(cls, folder: Path) -> "SavedModel":
        """Return the model in the folder of a finished run.

        Raises
        ------
        UsageError
            If the folder is not that of a finished run.
        """
        return cls(str(folder), str(folder), RunRecord.read(folder), Weights(folder / WEIGHTS), folder)


def joint_hash(hashes: Sequence[str]) -> str:
    """Return the hash of one model; for several, the SHA-256 of their hashes in order, one per line."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def part_hash(path: Path, start: int = 0, size: int | None = None) -> str:
    """Return the SHA-256 of `size` bytes of a file, or of everything after `start`, in hexadecimal."""
    found, left = hashlib.sha256(), size
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(BLOCK if left is None else min(BLOCK, left)):
            found.update(block)
            left = None if left is None else left - len(block)
    return found.hexdigest()

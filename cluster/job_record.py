"""The record of a run's SLURM job: written before the launcher waits, read when it is started again."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from cluster.errors import JobError

FILE = "job.json"


@dataclass(frozen=True)
class JobRecord:
    """One submitted job: its SLURM ID, the digest of its command, and its folder below the run's."""

    job_id: str
    command: str
    folder: str
    tasks: int
    submissions: int = 1
    ended: str | None = None

    @property
    def title(self) -> str:
        """Return the name of the job in messages."""
        return f"job {self.job_id}"

    def save(self, folder: Path) -> None:
        """Write the record atomically: the file is the old or the new one, never a partial one."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read the record of a folder; None when no job was ever submitted from it."""
        path = folder / FILE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, TypeError) as error:
            raise JobError(f"{path}: not a job record ({error}); delete it if no job of this run is alive") from None


def command_digest(command: Sequence[str]) -> str:
    """Return a fingerprint of a command, to recognise a job that does the same work."""
    return hashlib.sha256("\0".join(command).encode()).hexdigest()[:16]


def job_name(name: str, folder: Path) -> str:
    """Return a job name that only this run folder has, to find a job whose ID was never recorded."""
    key = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:12]
    readable = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "-" for char in name)
    return f"{readable[:40]}-{key}"


def new_folder(folder: Path) -> Path:
    """Create the next numbered subfolder of a run's, for the logs of one submission or one launch on this machine."""
    numbers = [int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    made = folder / f"{max(numbers, default=0) + 1:03d}"
    made.mkdir()
    return made


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in one step (temporary name, flush to disk, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as handle:
        json.dump(content, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)

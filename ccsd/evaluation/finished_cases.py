"""Finished cases of an evaluation that is under way, so that one that was killed carries on where it was."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preprocess.files import remove, write_text

Row = dict[str, Any]
FOLDER = ".parts"


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Return a short digest of everything that decides the scores."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Parts:
    """The rows of finished cases below an output folder.

    Parts of an evaluation with another identity (other weights, split, settings) are removed, never mixed in.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self._root = out / FOLDER
        self._folder = self._root / fingerprint(identity)
        if self._root.is_dir():
            for other in self._root.iterdir():
                if other != self._folder:
                    remove(other)
        for left_over in out.rglob(".*.tmp.*"):
            remove(left_over)

    def read(self, case: str) -> list[Row] | None:
        """Return the rows of a finished case, or None."""
        try:
            rows = json.loads((self._folder / f"{case}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return rows if isinstance(rows, list) else None

    def write(self, case: str, rows: list[Row]) -> None:
        """Keep the rows of a case whose predictions are written."""
        write_text(self._folder / f"{case}.json", json.dumps(rows))

    def discard(self) -> None:
        """Remove all parts: the evaluation is complete."""
        remove(self._root)

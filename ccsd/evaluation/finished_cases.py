"""Finished cases of an evaluation that is under way, so that one that was killed resumes where it was."""

import json
from pathlib import Path
from typing import Any

from ccsd.records import Identity
from ccsd.study import digest
from preprocess.files import TEMPORARY, remove, write_text

ScoreRow = dict[str, Any]
"""One row of metrics.tsv: what was scored, then its scores."""


class FinishedCases:
    """The rows of finished cases below an output folder.

    Those of an evaluation with another identity (other weights, split, settings) are removed, never mixed in.
    """

    def __init__(self, out: Path, identity: Identity) -> None:
        self._root = out / ".parts"
        self._folder = self._root / digest(identity.model_dump(mode="json", exclude_unset=True))
        if self._root.is_dir():
            for other in self._root.iterdir():
                if other != self._folder:
                    remove(other)
        for left_over in out.rglob(f"{TEMPORARY}*"):
            remove(left_over)

    def read(self, case: str) -> list[ScoreRow] | None:
        """Return the rows of a finished case, or None."""
        try:
            rows = json.loads((self._folder / f"{case}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return rows if isinstance(rows, list) else None

    def write(self, case: str, rows: list[ScoreRow]) -> None:
        """Keep the rows of a case whose predictions are written."""
        write_text(self._folder / f"{case}.json", json.dumps(rows))

    def discard(self) -> None:
        """Remove all of them: the evaluation is complete."""
        remove(self._root)

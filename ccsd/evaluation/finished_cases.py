"""The finished cases of an unfinished evaluation, so that an interrupted one can be resumed."""

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ccsd.records import Identity
from ccsd.study import digest
from preprocess.files import TEMPORARY, write_text

ScoreRow = dict[str, Any]
"""One row of metrics.tsv: what was scored, then its scores."""


class FinishedCases:
    """The rows of finished cases below an output folder.

    Rows of an evaluation with another identity (other weights, split, settings) are removed, never mixed in. Several
    processes may work on parts of one evaluation: `own` are the cases of this process. Temporary files that a killed
    process left for these cases are removed.
    """

    def __init__(self, out: Path, identity: Identity, own: Collection[str]) -> None:
        self._root = out / ".parts"
        self._folder = self._root / digest(identity.model_dump(mode="json", exclude_unset=True))
        if self._root.is_dir():
            for other in self._root.iterdir():
                if other != self._folder:
                    shutil.rmtree(other, ignore_errors=True)  # another part may remove it, too
        is_whole = set(own) == set(identity.cases)
        for folder, _, names in os.walk(out):  # ignores folders that another part removes meanwhile
            for name in names:
                if name.startswith(TEMPORARY) and (is_whole or _case_of(name) in own):
                    (Path(folder) / name).unlink(missing_ok=True)

    def read(self, case: str) -> list[ScoreRow] | None:
        """Return the rows of a finished case, or None."""
        try:
            rows = json.loads((self._folder / f"{case}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return rows if isinstance(rows, list) else None

    def write(self, case: str, rows: list[ScoreRow]) -> None:
        """Store the rows of a case whose predictions are written."""
        write_text(self._folder / f"{case}.json", json.dumps(rows))

    def discard(self) -> None:
        """Remove all rows when the evaluation is complete. Two parts that end at the same time both do this."""
        shutil.rmtree(self._root, ignore_errors=True)


def _case_of(temporary: str) -> str:
    """Return the case whose file was being written: `.tmp-3f2a9c1e-CASE.nii.gz`."""
    name = temporary.removeprefix(TEMPORARY).partition("-")[2]
    return name.removesuffix(".nii.gz").removesuffix(".json")

"""One Snakemake per study.

Snakemake's own lock files record what is locked, not by which process: after a crash it asks for `--unlock` although
nothing is running any more (snakemake/snakemake#2919). The profiles switch them off (`nolock`); this lock ends with its
process.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Never

from cluster.errors import JobError
from cluster.waiting import exclusive

FILE = ".lock"

_held = ExitStack()


def hold_study(folder: Path) -> None:
    """Lock a study's folder against every other Snakemake for as long as this process lives.

    Raises
    ------
    JobError
        If another Snakemake is working on the study, or the folder cannot be written.
    """

    def reject(holder: str) -> Never:
        raise JobError(f"{folder}: another Snakemake is working on this study ({holder}); wait for it, or end it")

    try:
        folder.mkdir(parents=True, exist_ok=True)
        _held.enter_context(exclusive(folder / FILE, reject))
    except OSError as error:
        raise JobError(f"{folder} cannot be written: {error.strerror}") from None

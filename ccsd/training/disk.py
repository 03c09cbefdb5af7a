"""What a training says when the disk is full outside of saving a checkpoint."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ccsd.errors import TrainingError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def told_of_full_disk(run: Path) -> Iterator[None]:
    """Turn an error about space into one message; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise TrainingError(
            f"{error.filename or run}: cannot be written ({error.strerror}); make room, and the same command carries "
            "on from the last checkpoint"
        ) from None

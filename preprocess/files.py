"""Writing files so that one that exists is whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Yield a temporary file or folder name beside `path`; it takes the place of `path` only if the block succeeds.

    An existing file is replaced in one step; an existing folder is moved aside first and then removed. The
    temporary name starts with a dot and ends in the process id: `.NAME.tmp.PID`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp.{os.getpid()}")
    remove(temporary)
    try:
        yield temporary
        sync(temporary)
        _take_place(temporary, path)
    finally:
        remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text so that `path` is either the old or the new file, never half of one."""
    with complete_or_absent(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or every file below a folder, to the disk."""
    for item in [path, *path.rglob("*")]:
        handle = os.open(item, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _take_place(temporary: Path, path: Path) -> None:
    if not path.is_dir():
        os.replace(temporary, path)  # noqa: PTH105 - the standard name for an atomic rename
        return
    old = path.with_name(f".{path.name}.old.{os.getpid()}")
    path.rename(old)
    temporary.rename(path)
    remove(old)

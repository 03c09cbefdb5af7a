"""Writing files completely or not at all, and case names that are safe as file names."""

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from preprocess.errors import InputError

_PLACE_ERRORS = {
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EEXIST", "EISDIR", "ENOSPC", "ENOTDIR", "EPERM", "EROFS", "ENAMETOOLONG")
}
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF)
_WARNED: set[int] = set()
"""File systems for which this process has already warned that they cannot flush folders."""

TEMPORARY = ".tmp-"
"""Prefix of the names of temporary files and folders."""
_STALE_S = 24 * 3600  # no file takes that long to write: its writer was killed


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Yield a temporary file or folder name beside `path`; it replaces `path` only if the block succeeds.

    An existing file is replaced atomically; an existing folder is moved aside first and then removed. The temporary
    name is hidden, unique, and keeps the suffixes: `.tmp-3f2a9c1e-NAME`.

    Raises
    ------
    InputError
        If `path` cannot be written: no space, no permission, a file where a folder should be.
    """
    temporary = _hidden(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        _take_place(temporary, path)
    except OSError as error:
        if error.errno not in _PLACE_ERRORS:
            raise
        raise InputError(
            f"{path}: cannot be written: {error.strerror}; free some space or choose another location"
        ) from None
    finally:
        with suppress(OSError):
            remove(temporary)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, if they do not exist.

    Raises
    ------
    InputError
        If it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be created: {error.strerror}; choose another folder") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text so that `path` is either the old or the new file, never half of one."""
    with complete_or_absent(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # file names need not be UTF-8


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove temporary files and folders in `folder` that are a day old, left by killed processes."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with suppress(FileNotFoundError):  # another process may be sweeping, too
            if time.time() - path.stat().st_mtime > _STALE_S:
                remove(path)


def sync(path: Path) -> None:
    """Flush a file, or every file below a folder, to the disk."""
    for item in [path, *path.rglob("*")]:
        sync_entry(item)


def sync_entry(path: Path) -> None:
    """Flush one file, or the names in one folder, to disk; some network file systems support this for files only."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC or not path.is_dir():
            raise
        _warn_of_no_sync(path.parent, path.stat().st_dev)
    finally:
        os.close(handle)


def _warn_of_no_sync(folder: Path, file_system: int) -> None:
    """Warn once per file system: a store has many folders, each with a new name while it is written."""
    if file_system in _WARNED:
        return
    _WARNED.add(file_system)
    text = f"{folder}: this file system cannot flush folders; after a crash of the machine, check what was written last"
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _hidden(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{uuid4().hex[:8]}-{path.name}")


def _take_place(temporary: Path, path: Path) -> None:
    if not (path.is_dir() and temporary.is_dir()):  # replacing a folder by a file fails
        os.replace(temporary, path)  # noqa: PTH105 - the standard name for an atomic rename
        return
    old = _hidden(path)
    path.rename(old)
    temporary.rename(path)
    remove(old)


_LONGEST = 150  # bytes; a file name may have 255, of which suffixes and temporary names need some


def check_case_name(name: str, where: object) -> None:
    """Reject a name that could leave its folder, break a table, or is not a valid file name.

    Raises
    ------
    InputError
        If the name is not safe; the message begins with `where`.
    """
    if not name or "/" in name or name in (".", "..") or not name.isprintable() or len(name.encode()) > _LONGEST:
        raise InputError(
            f"{where}: {name[:_LONGEST]!a} cannot be the name of a case: it must have 1 to {_LONGEST} printable bytes, "
            "without '/', tabs and line breaks; rename it"
        )

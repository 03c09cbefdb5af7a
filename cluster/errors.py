"""Errors about jobs, written for the person who submitted them."""

import errno

NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


class JobError(RuntimeError):
    """A job that could not be submitted or that failed; the message ends with where its logs lie."""


class SettingsError(ValueError):
    """A job setting that is unknown or out of range; the message lists what is allowed."""


def advise(error: OSError) -> str:
    """Return the message of an error of the file system, with what to do where that is known."""
    return f"{error}; make room, or fix the folder's permissions" if error.errno in NO_PLACE else str(error)

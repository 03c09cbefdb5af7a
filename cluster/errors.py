"""Errors about jobs, written for the person who submitted them."""

import errno

NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


class JobError(RuntimeError):
    """A job that could not be submitted or that failed; the message ends with the folder of its logs."""


class SettingsError(ValueError):
    """A job setting that is unknown or out of range; the message lists what is allowed."""


def advise(error: OSError) -> str:
    """Return the message of a file-system error, with advice where there is any."""
    return f"{error}; free some space, or fix the folder's permissions" if error.errno in NO_PLACE else str(error)

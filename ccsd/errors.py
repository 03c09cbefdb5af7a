"""Errors of the method's own stages, and which errors are the user's to fix."""

from cluster.errors import JobError, SettingsError
from preprocess.errors import InputError


class UsageError(ValueError):
    """A configuration, model or option that cannot be used; says what, where, what is allowed and what to do next."""


class TrainingError(RuntimeError):
    """A training that cannot go on; the message says where it stood and what to try."""


USER_ERRORS = (UsageError, InputError, SettingsError)
"""Shown as one message without a traceback, exit code 2."""

RUN_ERRORS = (JobError, TrainingError)
"""Shown as one message without a traceback, exit code 1: the input was fine, the run was not."""


def ending(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and the message that an error ends the program with; None for a bug."""
    if isinstance(error, USER_ERRORS):
        return 2, str(error)
    if isinstance(error, (*RUN_ERRORS, OSError)):
        return 1, str(error)
    if isinstance(error, MemoryError):
        return 1, f"not enough memory: {error}; give this process more, or ask for less"
    return None

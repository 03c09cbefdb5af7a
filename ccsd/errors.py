"""Errors of the stages of the method, and which errors users can fix."""

from cluster.errors import JobError, SettingsError
from preprocess.errors import InputError


class UsageError(ValueError):
    """An unusable configuration, model or option; the message says what, where, what is allowed and what to do next."""


class TrainingError(RuntimeError):
    """A training that cannot continue; the message says where it stopped and what to try."""


USER_ERRORS = (UsageError, InputError, SettingsError)
"""Shown as one message without a traceback, exit code 2."""

RUN_ERRORS = (JobError, TrainingError)
"""Shown as one message without a traceback, exit code 1: the input was fine, but the run failed."""


def ending(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and the message with which an error ends the program; None for a bug."""
    if isinstance(error, USER_ERRORS):
        return 2, str(error)
    if isinstance(error, (*RUN_ERRORS, OSError)):
        return 1, str(error)
    if isinstance(error, MemoryError):
        return 1, f"not enough memory: {error}; give this process more, or reduce what it needs"
    return None

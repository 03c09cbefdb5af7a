"""Errors about jobs, written for the person who submitted them."""


class JobError(RuntimeError):
    """A job that could not be submitted or that failed; the message ends with where its logs lie."""


class SettingsError(ValueError):
    """A job setting that is unknown or out of range; the message lists what is allowed."""

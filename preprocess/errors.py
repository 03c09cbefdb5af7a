"""Errors about input data, written for the person who has to mend the input."""


class InputError(ValueError):
    """Input that cannot be used; the message says what, where, what is allowed and what to do next."""

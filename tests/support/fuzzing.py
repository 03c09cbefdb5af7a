"""What the tests with random inputs share."""

from collections.abc import Callable
from typing import Any

from ccsd.errors import RUN_ERRORS, USER_ERRORS

LONGEST = 10_000


def attempt(work: Callable[[], Any], what: str) -> tuple[Any, str]:
    """Return what some work returns, or the message that rejects its input; everything else fails the test."""
    try:
        return work(), ""
    except USER_ERRORS + RUN_ERRORS as error:
        message = str(error)
    except Exception as error:
        raise AssertionError(what) from error
    assert 0 < len(message) < LONGEST, what
    return None, message

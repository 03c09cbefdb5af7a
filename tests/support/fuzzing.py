"""What the tests with random inputs share."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ccsd.errors import RUN_ERRORS, USER_ERRORS

LONGEST = 10_000
Rng = np.random.Generator


def flip_bits(data: bytes, rng: Rng, last: int | None = None) -> bytes:
    """Flip one to five bits, all before byte `last`."""
    changed = bytearray(data)
    for place in rng.integers(0, last or len(data), rng.integers(1, 6)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


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

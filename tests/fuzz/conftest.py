"""How many inputs are tried: few by default, many in the slow tier, any number by hand (`FUZZ=100000`)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccsd.errors import RUN_ERRORS, USER_ERRORS

LONGEST = 10_000
FEW, MANY = 12, 150


@pytest.fixture(params=[FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def tries(request: pytest.FixtureRequest) -> int:
    """Return a number that the tests scale their numbers of inputs by."""
    return int(os.environ.get("FUZZ", request.param))


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms of 32 voxels, one in each naming."""
    from preprocess.phantom.cohort import write_cohort

    folder = tmp_path_factory.mktemp("cohort")
    list(write_cohort(folder, cases=2, size=32, seed=1))
    return folder


@pytest.fixture(scope="session")
def attempt() -> Callable[[Callable[[], Any], str], tuple[Any, str]]:
    """Return a function that returns what some work returns, or the message that refuses it; all else fails."""

    def run(work: Callable[[], Any], what: str) -> tuple[Any, str]:
        try:
            return work(), ""
        except USER_ERRORS + RUN_ERRORS as error:
            message = str(error)
        except Exception as error:
            raise AssertionError(what) from error
        assert 0 < len(message) < LONGEST, what
        return None, message

    return run

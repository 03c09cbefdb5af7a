"""How many inputs are tried: few by default, many in the slow tier, any number by hand (`FUZZ=100000`)."""

import os

import pytest

FEW, MANY = 12, 150


@pytest.fixture(params=[FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def tries(request: pytest.FixtureRequest) -> int:
    """Return a number that the tests scale their numbers of inputs by."""
    return int(os.environ.get("FUZZ", request.param))

"""What evaluation.json says about where its numbers come from."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from ccsd import __version__
from ccsd.metrics import Policy

FORMAT = 1
_LIBRARIES = ("torch", "monai", "numpy", "scipy", "nibabel")


def versions() -> dict[str, str]:
    """Return the versions of what computes the numbers."""
    found = {name: version(name) for name in _LIBRARIES}
    return {"ccsd": __version__, "python": platform.python_version(), **found}


def describe(identity: dict[str, Any], policy: Policy, counts: dict[str, Any]) -> dict[str, Any]:
    """Return the content of evaluation.json."""
    return {
        "format": FORMAT,
        "identity": identity,
        "policy": policy.describe(),
        "policy_text": policy.sentence(),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **counts,
    }

"""Settings of the distillation for tests that look at every set in one step."""

from typing import Any

from ccsd.config import Distillation

EVERY_SET = {"per_step": "all", "supervise_path": True, "every_n": 1}
"""Visit and supervise every set, and score each step; by default, a step visits one besides the full set."""


def every_set(**settings: Any) -> Distillation:
    """Return settings that visit every set in each step."""
    return Distillation(**{**EVERY_SET, **settings})


TERMS = ("loss", "supervised", "hmsd", "dmcd", "shared", "specific")
"""Terms of our methods."""

"""The settings of an evaluation: those of the configuration with overrides, and the policy they ask for."""

from collections.abc import Sequence

from ccsd.config import Config, Evaluation
from ccsd.config.load import parse_override, set_key, validate
from ccsd.errors import UsageError
from ccsd.metrics import Policy


def evaluation_settings(config: Config | None, overrides: Sequence[str]) -> Evaluation:
    """Return a run's evaluation settings, or the defaults without one, with `evaluation.KEY=VALUE` applied."""
    base = config or Config.model_validate({"name": "defaults", "phantom": {}})
    raw = base.model_dump(mode="json")
    for text in overrides:
        key, value = parse_override(text)
        if not key.startswith("evaluation."):
            allowed = ", ".join(f"evaluation.{name}" for name in Evaluation.model_fields)
            raise UsageError(f"--set {text}: only settings of the evaluation can be set here; allowed: {allowed}")
        set_key(raw, key, value)
    return validate(raw, "--set").evaluation


def policy_of(settings: Evaluation) -> Policy:
    """Return the policy for empty regions that the settings ask for."""
    return Policy(settings.hd95_penalty, score_both_empty=settings.both_empty == "score")

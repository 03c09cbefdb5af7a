"""Configurations as the first version understood them."""

from collections.abc import Mapping
from typing import Any

from ccsd.config import Config
from ccsd.config.science import FIRST_DEFAULTS


def first_config(sections: Mapping[str, Mapping[str, Any]] = {}) -> Config:
    """Return a configuration in which every setting that is not given has its first default."""
    found: dict[str, Any] = {"name": "x", "phantom": {}, **{name: dict(values) for name, values in sections.items()}}
    for setting, value in FIRST_DEFAULTS.items():
        section, key = setting.split(".")
        found.setdefault(section, {}).setdefault(key, value)
    return Config.model_validate(found)

"""What the sections of the configuration have in common."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]


def _from_home(path: Path) -> Path:
    # Path.expanduser raises if there is no such user; such a path is reported later as not found.
    return Path(os.path.expanduser(path))  # noqa: PTH111


UserPath = Annotated[Path, AfterValidator(_from_home)]
"""A path as users write it: no shell has expanded the ~ in a configuration."""

UserText = Annotated[str, AfterValidator(os.path.expanduser)]
"""The same for a text that may be a path."""


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

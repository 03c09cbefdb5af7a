"""CASE.json beside a segmentation: which model made it, how, and what it shows. By it a finished case is known."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preprocess.files import write_text
from preprocess.source import nifti

DECISIVE = ("models", "options")
"""Keys of what decides a segmentation, beside the images."""


def record_file(segmentation: Path) -> Path:
    """Return where it says how a segmentation was made: `CASE.json` beside `CASE.nii.gz`."""
    return segmentation.with_name(f"{nifti.stem(segmentation)}.json")


def write_record(segmentation: Path, made: Mapping[str, Any], **found: Any) -> None:
    """Write how a segmentation was made and what it shows, after the segmentation itself."""
    write_text(record_file(segmentation), json.dumps({**made, **found}, indent=2) + "\n")


def is_finished(segmentation: Path, made: Mapping[str, Any]) -> bool:
    """Whether a segmentation is there that was made so.

    One without a record counts: it comes from an earlier version, or by hand, and must not be lost.
    """
    if not segmentation.is_file():
        return False
    try:
        record = json.loads(record_file(segmentation).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and all(record.get(key) == made[key] for key in DECISIVE)

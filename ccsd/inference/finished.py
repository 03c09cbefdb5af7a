"""CASE.json beside a segmentation: which model made it, how, and what it shows. By it a finished case is known."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preprocess.files import write_text
from preprocess.source import nifti
from preprocess.source.layouts import CaseFiles

DECISIVE = ("options", "files")
"""Keys of what decides a segmentation, beside the weights."""


def record_file(segmentation: Path) -> Path:
    """Return where it says how a segmentation was made: `CASE.json` beside `CASE.nii.gz`."""
    return segmentation.with_name(f"{nifti.stem(segmentation)}.json")


def probabilities_file(segmentation: Path) -> Path:
    """Return where the probabilities of a segmentation lie: `CASE_probabilities.nii.gz` beside it."""
    return segmentation.with_name(f"{nifti.stem(segmentation)}_probabilities.nii.gz")


def taken_for(case: CaseFiles) -> dict[str, Any]:
    """Return which file is which sequence, and what the label numbers are: what is there, and what a layout decides.

    The names are those below the folder that all of them share, so that it may be moved.
    """
    folders = [path.parent for path in case.images.values()]
    shared = os.path.commonpath(folders) if folders else ""
    images = {name: os.path.relpath(path, shared) for name, path in case.images.items()}
    numbering = case.numbering if case.declared is None else str(case.declared)
    return {"images": images, "channels": list(case.channels), "numbering": numbering}


def write_record(segmentation: Path, made: Mapping[str, Any], **found: Any) -> None:
    """Write how a segmentation was made and what it shows, after the segmentation itself."""
    write_text(record_file(segmentation), json.dumps({**made, **found}, indent=2) + "\n")


def is_finished(segmentation: Path, made: Mapping[str, Any]) -> bool:
    """Whether a segmentation is there that was made so, wherever the runs lay and whatever they were called.

    One without a record counts: it comes from an earlier version, or by hand, and must not be lost.
    """
    if not segmentation.is_file():
        return False
    if made["options"]["probabilities"] and not probabilities_file(segmentation).is_file():
        return False
    try:
        record = json.loads(record_file(segmentation).read_text(encoding="utf-8"))
        return _weights(record) == _weights(made) and all(record[key] == made[key] for key in DECISIVE)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError, KeyError):  # damaged, or without one of the keys
        return False


def _weights(record: Mapping[str, Any]) -> list[str]:
    return [model["model_hash"] for model in record["models"]]

"""Which files belong to a segmentation, and how a finished case is recognised."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ccsd.errors import UsageError
from ccsd.inference.record import PredictionRecord
from preprocess.source import nifti
from preprocess.source.layouts import CaseFiles

DECISIVE = ("format", "options", "files")
"""Keys of the record that determine a segmentation, apart from the weights."""


def record_file(segmentation: Path) -> Path:
    """Return the path of a segmentation's record: `CASE.json` beside `CASE.nii.gz`."""
    return _beside(segmentation, ".json")


def probabilities_file(segmentation: Path) -> Path:
    """Return the path of a segmentation's probabilities: `CASE_probabilities.nii.gz` beside it."""
    return _beside(segmentation, "_probabilities.nii.gz")


def preview_file(segmentation: Path) -> Path:
    """Return the path of a segmentation's picture: `CASE.png` beside it."""
    return _beside(segmentation, ".png")


def _beside(segmentation: Path, ending: str) -> Path:
    name = nifti.stem(segmentation)
    if not name:
        raise UsageError(f"{segmentation}: not the name of a NIfTI file; it must end in {' or '.join(nifti.SUFFIXES)}")
    return segmentation.with_name(f"{name}{ending}")


def taken_for(case: CaseFiles) -> dict[str, Any]:
    """Return which file was taken for which sequence, and the label convention, as the layout determines them.

    Names are relative to the common folder of the files, so that it can be moved.
    """
    folders = [path.parent for path in case.images.values()]
    shared = os.path.commonpath(folders) if folders else ""
    images = {name: os.path.relpath(path, shared) for name, path in case.images.items()}
    numbering = case.numbering if case.declared is None else str(case.declared)
    return {"images": images, "channels": list(case.channels), "numbering": numbering}


def read_record(segmentation: Path) -> PredictionRecord | None:
    """Return the record of a segmentation; None if there is none in the format of this version."""
    try:
        return PredictionRecord.model_validate_json(record_file(segmentation).read_bytes())
    except (OSError, ValidationError):
        return None


def is_finished(segmentation: Path, made: Mapping[str, Any], *, preview: bool = False) -> bool:
    """Return whether there is a segmentation made in this way, wherever the runs were and whatever their names.

    A segmentation is put in place last, after all files that belong to it. One without a record counts as finished:
    it was made by an earlier version or by hand, and must not be lost.
    """
    wanted = [probabilities_file(segmentation)] if made["options"]["probabilities"] else []
    wanted += [preview_file(segmentation)] if preview else []
    if not segmentation.is_file():
        return False
    try:
        record = json.loads(record_file(segmentation).read_text(encoding="utf-8"))
        same = _weights(record) == _weights(made) and all(record[key] == made[key] for key in DECISIVE)
        return same and all(path.is_file() for path in wanted)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError, KeyError):  # damaged, or without one of the keys
        return False


def _weights(record: Mapping[str, Any]) -> list[str]:
    return [model["model_hash"] for model in record["models"]]

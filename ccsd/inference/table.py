"""predictions.tsv in a folder of segmentations: one row per case, with what it shows or why there is nothing."""

import csv
import json
from collections.abc import Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

from ccsd.inference.finished import read_record
from ccsd.inference.record import PredictionRecord
from ccsd.records import short_hash
from preprocess.files import write_text
from preprocess.task import Task

FILE = "predictions.tsv"
FAILED = ".failed"
"""Folder with the reason for each case whose last attempt failed, for the processes that write the table."""
COLUMNS = {
    "case": "name of the case",
    "state": "`segmented`; `failed`: rejected, for the reason given; `pending`: not tried yet, or interrupted; "
    "`unrecorded`: a segmentation of unknown origin, from an earlier version or made by hand",
    "reason": "why it failed",
    "segmentation": "the file",
    "used": "sequences that were used, joined by `+`",
    "missing": "sequences of the task that the case lacks, joined by `+`",
    "models": "first 12 digits of the SHA-256 of each model's weights, joined by `+`",
    "task": "name of the task, and its digest",
    "REGION_mm3": "volume of each region",
    "REGION_lesions": "number of lesions of each region",
    "REGION_longest_mm": "longest diameter of the largest lesion in an axial slice",
    "REGION_perpendicular_mm": "longest diameter perpendicular to it in the same slice",
    "REGION_expected_dice": "Dice to expect, if the models are calibrated",
    "REGION_expected_low": "lower end of its interval",
    "REGION_expected_high": "upper end of its interval",
    "warnings": "what a person should check, joined by `; `",
    "ccsd_version": "version of the program",
}
"""The columns with their meaning; REGION stands for each region of the task in turn."""
_REGION = "REGION"
Row = dict[str, str]


def note_failure(folder: Path, case: str, reason: str) -> None:
    """Record why a case was not segmented."""
    write_text(folder / FAILED / f"{case}.json", json.dumps({"case": case, "reason": reason}) + "\n")


def forget_failure(folder: Path, case: str) -> None:
    """Remove the reason why an earlier attempt failed."""
    (folder / FAILED / f"{case}.json").unlink(missing_ok=True)


def write_table(folder: Path, cases: Sequence[str], task: Task) -> None:
    """Write the table of a folder: `cases`, and every other case that has a record there.

    It is made only from the files in the folder, so that any of several processes that segment parts of the cases can
    write it at any time. Each process checks again after writing, so the last one has the results of all.
    """
    while True:
        rows = table_rows(folder, cases, task)
        text = StringIO()
        writer = csv.DictWriter(text, columns(task), delimiter="\t", lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_text(folder / FILE, text.getvalue())
        with suppress(OSError):  # it is missing, or still has reasons
            (folder / FAILED).rmdir()
        if table_rows(folder, cases, task) == rows:
            return


def columns(task: Task) -> list[str]:
    """Return the columns of a task's table."""
    places = {name: [name] for name in COLUMNS if not name.startswith(_REGION)}
    endings = [name.removeprefix(_REGION) for name in COLUMNS if name.startswith(_REGION)]
    places["task"] += [f"{region}{ending}" for region in task.regions for ending in endings]
    return [name for names in places.values() for name in names]


def table_rows(folder: Path, cases: Sequence[str], task: Task) -> list[Row]:
    """Return the rows by case, sorted."""
    found = {
        path.name.removesuffix(".json") for path in folder.glob("[!.]*.json")
    }  # without files that are being written
    recorded = {name: record for name in found if (record := read_record(folder / f"{name}.nii.gz"))}
    return [_row(folder, case, recorded.get(case), task) for case in sorted({*cases, *recorded})]


def _row(folder: Path, case: str, record: PredictionRecord | None, task: Task) -> Row:
    path = folder / f"{case}.nii.gz"
    if reason := _failure(folder, case):
        return {"case": case, "state": "failed", "reason": _one_line(reason)}
    if not path.is_file():
        return {"case": case, "state": "pending"}
    if record is None:
        return {"case": case, "state": "unrecorded", "segmentation": path.name}
    row = {"case": case, "state": "segmented", "segmentation": path.name}
    row |= {"used": "+".join(record.used), "missing": "+".join(record.missing), "task": record.task}
    row |= {"models": "+".join(short_hash(model.model_hash) for model in record.models)}
    row |= {"warnings": _one_line("; ".join(record.warnings)), "ccsd_version": record.ccsd_version}
    for region in (name for name in task.regions if name in record.volumes_mm3):
        lesions = record.lesions.get(region, ())
        row |= {f"{region}_mm3": f"{record.volumes_mm3[region]:.9g}", f"{region}_lesions": str(len(lesions))}
        row |= _expected(region, record)
        if lesions:
            row |= {f"{region}_longest_mm": f"{lesions[0].longest_diameter_mm:g}"}
            row |= {f"{region}_perpendicular_mm": f"{lesions[0].perpendicular_diameter_mm:g}"}
    return row


def _expected(region: str, record: PredictionRecord) -> Row:
    if (found := record.expected_dice.get(region)) is None:
        return {}
    ends = {"expected_dice": found.value, "expected_low": found.low, "expected_high": found.high}
    return {f"{region}_{name}": f"{value:.4g}" for name, value in ends.items() if value is not None}


def _failure(folder: Path, case: str) -> str:
    try:
        return str(json.loads((folder / FAILED / f"{case}.json").read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _one_line(text: str) -> str:
    return " ".join(text.split())

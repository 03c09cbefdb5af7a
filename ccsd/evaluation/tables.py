"""The tables of scores: their columns, writing them, and reading them back."""

import json
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ccsd import __version__
from ccsd.errors import UsageError
from ccsd.metrics import Policy
from preprocess.files import write_text

KEYS = ("experiment", "seed", "case", "subset", "modalities", "region")
"""What a row is about: one case, one combination of modalities, one region."""

SCORES = {
    "empty": "which region is empty: no, prediction, reference, both",
    "dice": "overlap, 0 to 1",
    "hd95": "mm; the larger of both directions' 95th percentiles of surface distance (BraTS, MONAI)",
    "hd95_pooled": "mm; 95th percentile of both directions' surface distances together (medpy)",
    "nsd": "share of both surfaces within 1 mm of the other, 0 to 1",
    "sensitivity": "share of the reference that was found; nothing where the reference is empty",
    "precision": "share of the prediction that is right; nothing where the prediction is empty",
    "volume_mm3": "volume of the prediction",
    "reference_mm3": "volume of the reference",
    "lesion_dice": "mean over lesions by the rule of BraTS 2023, missed and false ones count 0",
    "lesion_hd95": "mm; the same for HD95, missed and false ones count 374",
    "lesions": "lesions of the reference above 50 mm3",
    "lesions_missed": "of them, those that no predicted component meets",
    "lesions_false": "predicted components that meet no lesion",
}
CLEANED = ("dice", "hd95", "hd95_pooled", "nsd", "lesion_dice", "lesion_hd95")
PROVENANCE = {
    "policy": "how empty regions are scored",
    "min_enhancing": "clean-up of the columns ending in _clean: ET of fewer voxels became NCR; 0 is no clean-up",
    "model_hash": "first 12 digits of the SHA-256 of the weights; nothing when no model was run",
    "split_hash": "first 12 digits of the hash of the split; nothing when no split was used",
}
COLUMNS = (*KEYS, *SCORES, *(f"{name}_clean" for name in CLEANED), *PROVENANCE)
DIGITS = 12
"""Digits of a hash that tables show."""

_TEXT = ("experiment", "case", "subset", "region", "empty", "policy", "model_hash", "split_hash")
_WHOLE = ("seed", "modalities", "lesions", "lesions_missed", "lesions_false", "min_enhancing")
DTYPES = {name: "string" if name in _TEXT else "Int64" if name in _WHOLE else "float64" for name in COLUMNS}


def write_metrics(path: Path, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Write one row per case, combination and region as TSV, and return them as a table."""
    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    # 9 digits hold a float32 exactly, and keep tables the same where sums differ in the last bit.
    write_text(path, table.to_csv(sep="\t", index=False, float_format="%.9g"))
    return read_metrics(path)


def read_metrics(path: Path) -> pd.DataFrame:
    """Read `metrics.tsv` or `metrics.parquet` with the types of its columns.

    Raises
    ------
    UsageError
        If the file cannot be read or is not such a table.
    """
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, sep="\t", dtype=DTYPES, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a table of scores: {error}; run `ccsd evaluate` again") from None
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise UsageError(f"{path}: not a table of scores, columns missing: {', '.join(missing)}")
    return table


def mean_dice(table: pd.DataFrame) -> str:
    """Return the mean Dice over cases as text: a row per combination, a column per region."""
    means = table.pivot_table(index="subset", columns="region", values="dice", aggfunc="mean", sort=False)
    text: str = means.rename_axis(index=None, columns=None).to_string(float_format="%.3f", na_rep="-")
    cases = table["case"].nunique()
    return f"mean Dice over {cases} case{'s' * (cases != 1)}\n{text}"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file for people and programs, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is absent or no object is a `UsageError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a JSON object")
    return content


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

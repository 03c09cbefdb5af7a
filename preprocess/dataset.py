"""A converted data set: a store or a refusal per case, `cases.tsv`, and the fingerprint `dataset.json`."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.errors import InputError
from preprocess.files import remove, write_text
from preprocess.modalities import MODALITIES, REGIONS
from preprocess.store.meta import LAYOUT_VERSION, CaseMeta
from preprocess.store.reader import CaseStore, list_cases, store_path

CASES_FILE, FINGERPRINT_FILE, REFUSED = "cases.tsv", "dataset.json", "refused"
_COLUMNS = (
    "case",
    "status",
    "patient",
    "layout",
    "modalities",
    "label",
    "shape",
    *(f"{r}_ml" for r in REGIONS),
    "note",
)
_SCAN = re.compile(r"^(BraTS-[A-Za-z]+-\d+)-\d{3}$")


def read_metas(dest: Path) -> dict[str, CaseMeta]:
    """Return the attributes of every store below `dest`, by case, sorted.

    Raises
    ------
    InputError
        If the folder is missing or a store is damaged.
    """
    return {case: CaseStore(dest, case).meta for case in list_cases(dest)}


def write_refusal(dest: Path, case: str, reason: str, files: Iterable[Path]) -> None:
    """Leave a note below `dest/refused` that a case was refused, and no store of an older source."""
    remove(store_path(dest, case))
    note = {"case": case, "reason": reason, "files": [str(path.absolute()) for path in files]}
    write_text(_note(dest, case), json.dumps(note, indent=1) + "\n")


def drop_refusal(dest: Path, case: str) -> None:
    """Remove the note on a case, if there is one."""
    remove(_note(dest, case))


def drop_outdated_refusals(dest: Path) -> None:
    """Remove the notes on cases whose source files are gone."""
    for note in _notes(dest):
        if note["files"] and not any(Path(file).exists() for file in note["files"]):
            drop_refusal(dest, note["case"])


def read_refusals(dest: Path) -> dict[str, str]:
    """Return the reason by case of the cases that were refused."""
    return {note["case"]: note["reason"] for note in _notes(dest)}


def is_settled(dest: Path, case: str) -> bool:
    """Return whether a conversion has left a store or a refusal of the case."""
    return store_path(dest, case).exists() or _note(dest, case).exists()


def _note(dest: Path, case: str) -> Path:
    return dest / REFUSED / f"{case}.json"


def _notes(dest: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted((dest / REFUSED).glob("*.json")):
        with suppress(FileNotFoundError):  # another part of the conversion may have removed it
            found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def write_tables(dest: Path) -> dict[str, CaseMeta]:
    """Write `cases.tsv` and `dataset.json` from the stores and refusals below `dest`; return the attributes read."""
    metas, refusals = read_metas(dest), read_refusals(dest)
    rows = [_row(meta) for meta in metas.values()]
    rows += [{"case": case, "status": "refused", "note": _line(reason)} for case, reason in refusals.items()]
    for row in rows:
        row["patient"] = patient_of(row["case"])
    table = io.StringIO()
    writer = csv.DictWriter(
        table, _COLUMNS, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None
    )
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: row["case"]))
    write_text(dest / CASES_FILE, table.getvalue())
    write_text(dest / FINGERPRINT_FILE, json.dumps(fingerprint(metas, len(refusals)), indent=2) + "\n")
    return metas


def patient_of(case: str) -> str:
    """Return the patient a scan is of: `BraTS-GLI-00000` for `BraTS-GLI-00000-001`, else the case itself."""
    match = _SCAN.match(case)
    return match[1] if match else case


def data_hash(metas: Iterable[CaseMeta]) -> str:
    """Return 16 hexadecimal digits that change with any source file, case name or version of the store's layout."""
    lines = sorted(
        " ".join([meta.case, *(f"{name}={source.sha256}" for name, source in sorted(meta.sources.items()))])
        for meta in metas
    )
    return sha256("\n".join([f"layout {LAYOUT_VERSION}", *lines]).encode()).hexdigest()[:16]


def fingerprint(metas: Mapping[str, CaseMeta], refused: int = 0) -> dict[str, Any]:
    """Return what is worth knowing about a data set before training on it: counts, shapes, intensities, volumes."""
    found = list(metas.values())
    labelled = [meta for meta in found if meta.volumes_ml]
    return {
        "cases": len(found),
        "refused": refused,
        "labelled": len(labelled),
        "patients": len({patient_of(meta.case) for meta in found}),
        "data_hash": data_hash(found),
        "layouts": dict(Counter(meta.layout for meta in found)),
        "modalities": {m: sum(m in meta.modalities for meta in found) for m in MODALITIES},
        "source_shape": _spread([meta.geometry.shape for meta in found]),
        "cropped_shape": _spread([[b - a for a, b in meta.geometry.box] for meta in found]),
        "spacing_mm": _spread([meta.geometry.spacing for meta in found]),
        "intensity": {
            m: {
                "mean": _spread([[meta.scales[m].mean] for meta in found if m in meta.scales]),
                "std": _spread([[meta.scales[m].std] for meta in found if m in meta.scales]),
            }
            for m in MODALITIES
        },
        "volume_ml": {region: _spread([[meta.volumes_ml[region]] for meta in labelled]) for region in REGIONS},
    }


def read_fingerprint(dest: Path) -> dict[str, Any]:
    """Return the fingerprint that `write_tables` left below `dest`.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    path = dest / FINGERPRINT_FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); `ccsd split {dest}` writes it") from None


def _spread(rows: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Return minimum, median and maximum of each column."""
    if not rows:
        return {}
    table = np.array(rows, np.float64)
    columns = {"min": table.min(axis=0), "median": np.median(table, axis=0), "max": table.max(axis=0)}
    return {name: [round(float(v), 4) for v in values] for name, values in columns.items()}


def _row(meta: CaseMeta) -> dict[str, str]:
    return {
        "case": meta.case,
        "status": "converted",
        "layout": meta.layout,
        "modalities": "+".join(meta.modalities),
        "label": meta.label_convention.name if meta.volumes_ml else "none",
        "shape": "x".join(str(n) for n in meta.geometry.shape),
        **{f"{region}_ml": f"{volume:.3f}" for region, volume in meta.volumes_ml.items()},
        "note": _line("; ".join(meta.warnings)),
    }


def _line(text: str) -> str:
    return " ".join(text.split())

"""What a converted data set holds: `cases.tsv` (one line per case) and `dataset.json` (its fingerprint)."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.convert import read_refusals
from preprocess.files import write_text
from preprocess.modalities import MODALITIES, REGIONS
from preprocess.store.meta import LAYOUT_VERSION, CaseMeta
from preprocess.store.reader import list_cases, open_case

CASES_FILE, FINGERPRINT_FILE = "cases.tsv", "dataset.json"
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
    return {case: open_case(dest, case).meta for case in list_cases(dest)}


def write_tables(dest: Path) -> dict[str, CaseMeta]:
    """Write `cases.tsv` and `dataset.json` from the stores and refusals below `dest`; return the attributes read."""
    metas, refusals = read_metas(dest), read_refusals(dest)
    rows = [_row(meta) for meta in metas.values()] + [_refused_row(*item) for item in refusals.items()]
    lines = ["\t".join(_COLUMNS), *("\t".join(row) for row in sorted(rows))]
    write_text(dest / CASES_FILE, "\n".join(lines) + "\n")
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
    labelled = [meta for meta in found if meta.volumes]
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
        "volume_ml": {region: _spread([[meta.volumes[region]] for meta in labelled]) for region in REGIONS},
    }


def _spread(rows: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Return minimum, median and maximum of each column."""
    if not rows:
        return {}
    table = np.array(rows, np.float64)
    columns = {"min": table.min(axis=0), "median": np.median(table, axis=0), "max": table.max(axis=0)}
    return {name: [round(float(v), 4) for v in values] for name, values in columns.items()}


def _row(meta: CaseMeta) -> tuple[str, ...]:
    shape = "x".join(str(n) for n in meta.geometry.shape)
    label = meta.label_convention.name if meta.volumes else "none"
    volumes = [f"{meta.volumes[region]:.3f}" if meta.volumes else "" for region in REGIONS]
    patient, names = patient_of(meta.case), "+".join(meta.modalities)
    return meta.case, "converted", patient, meta.layout, names, label, shape, *volumes, _line("; ".join(meta.warnings))


def _refused_row(case: str, reason: str) -> tuple[str, ...]:
    return case, "refused", patient_of(case), "", "", "", "", *("" for _ in REGIONS), _line(reason)


def _line(text: str) -> str:
    return " ".join(text.split())

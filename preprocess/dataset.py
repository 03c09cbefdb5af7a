"""A converted data set: a store or a rejection per case, `cases.tsv`, and the fingerprint `dataset.json`."""

import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from preprocess.errors import InputError, first_few
from preprocess.files import remove, write_text
from preprocess.reading import read_table
from preprocess.source.layouts.layout import patient_named
from preprocess.store.meta import LAYOUT_VERSION, CaseMeta, patient_of
from preprocess.store.reader import CaseStore, list_cases, store_path
from preprocess.task import Task, reject_mixture

CASES_FILE, FINGERPRINT_FILE, PATIENTS_FILE, REJECTED = "cases.tsv", "dataset.json", "patients.tsv", "rejected"
_COLUMNS = ("case", "status", "patient", "layout", "modalities", "label", "shape", "note")


def read_metas(dest: Path) -> dict[str, CaseMeta]:
    """Return the attributes of every store below `dest`, by case, sorted.

    Raises
    ------
    InputError
        If the folder is missing or a store is damaged.
    """
    return {case: CaseStore(dest, case).meta for case in list_cases(dest)}


def write_rejection(dest: Path, case: str, reason: str, files: Iterable[Path]) -> None:
    """Note below `dest/rejected` why a case was rejected, and remove any store made from an older source."""
    remove(store_path(dest, case))
    note = {"case": case, "reason": reason, "files": [str(path.absolute()) for path in files]}
    write_text(_note(dest, case), json.dumps(note, indent=1) + "\n")


def drop_rejection(dest: Path, case: str) -> None:
    """Remove the note on a case, if there is one."""
    remove(_note(dest, case))


def drop_outdated_rejections(dest: Path) -> None:
    """Remove the notes on cases whose source files are gone."""
    for note in _notes(dest):
        if note["files"] and not any(Path(file).exists() for file in note["files"]):
            drop_rejection(dest, note["case"])


def read_rejections(dest: Path) -> dict[str, str]:
    """Return the reason for each rejected case."""
    return {note["case"]: note["reason"] for note in _notes(dest)}


def is_settled(dest: Path, case: str) -> bool:
    """Return whether a conversion has left a store or a rejection for the case."""
    return store_path(dest, case).exists() or _note(dest, case).exists()


def _note(dest: Path, case: str) -> Path:
    return dest / REJECTED / f"{case}.json"


def _notes(dest: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted((dest / REJECTED).glob("*.json")):
        with suppress(FileNotFoundError):  # another part of the conversion may have removed it
            found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def write_tables(dest: Path, about: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, CaseMeta]:
    """Write `cases.tsv` and `dataset.json` from the stores and rejections below `dest`; return the attributes read.

    Parameters
    ----------
    about
        From `read_patients`: the patient of each case, and the other columns of the user's table. Saved in
        `patients.tsv`, and read from there if not given.

    Raises
    ------
    InputError
        If the stores belong to different tasks.
    """
    metas, rejections, about = read_metas(dest), read_rejections(dest), _kept(dest, about)
    reject_mixture([(f"{dest}: {case}", meta.task) for case, meta in metas.items()])
    regions = [f"{region}_ml" for meta in list(metas.values())[:1] for region in meta.task.regions]
    columns = (*_COLUMNS[:-1], *regions, _COLUMNS[-1])
    patients = find_patients(metas, about)
    rows = [_row(meta) for meta in metas.values()]
    rows += [{"case": case, "status": "rejected", "note": _line(reason)} for case, reason in rejections.items()]
    further = list(dict.fromkeys(name for values in about.values() for name in values if name not in columns))
    for row in rows:
        known = about.get(row["case"], {})
        row |= {name: _line(known.get(name, "")) for name in further}
        row["patient"] = patients.get(row["case"]) or known.get("patient") or patient_of(row["case"])
    table = io.StringIO()
    writer = csv.DictWriter(
        table, (*columns, *further), delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None
    )
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: row["case"]))
    write_text(dest / CASES_FILE, table.getvalue())
    counts = {"rejected": len(rejections), "patients": len(set(patients.values()))}
    write_text(dest / FINGERPRINT_FILE, json.dumps(fingerprint(metas, **counts), indent=2) + "\n")
    return metas


def read_patients(path: Path) -> dict[str, dict[str, str]]:
    """Return the row of each case in a table with the columns case and patient, and any others.

    Raises
    ------
    InputError
        If the table cannot be read, or a case is listed twice or without a patient.
    """
    found: dict[str, dict[str, str]] = {}
    for number, row in read_table(path, ("case", "patient")).items():
        case = row.pop("case")
        if not case or not row["patient"] or case in found:
            raise InputError(f"{path}, line {number}: list each case once, with its patient")
        found[case] = row
    return found


def kept_patients(dest: Path) -> dict[str, dict[str, str]]:
    """Return the user's table of patients, by case, as it was last given."""
    path = dest / PATIENTS_FILE
    return read_patients(path) if path.is_file() else {}


def _kept(dest: Path, about: Mapping[str, Mapping[str, str]] | None) -> Mapping[str, Mapping[str, str]]:
    if not about:
        return kept_patients(dest)
    columns = list(dict.fromkeys(name for values in about.values() for name in values))
    rows = [("case", *columns)]
    rows += [(case, *(_line(row.get(name, "")) for name in columns)) for case, row in about.items()]
    write_text(dest / PATIENTS_FILE, "".join("\t".join(row) + "\n" for row in rows))
    return about


def find_patients(metas: Mapping[str, CaseMeta], about: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the patient of each case, from the user's table, the layout or the name.

    Cases that share an image belong to the same patient.
    """
    patients = {
        case: about.get(case, {}).get("patient") or meta.patient or patient_named(case) or patient_of(case)
        for case, meta in metas.items()
    }
    for cases in shared_images(metas):
        same = {patients[case] for case in cases}
        patients = {case: min(same) if patient in same else patient for case, patient in patients.items()}
    return patients


def shared_images(metas: Mapping[str, CaseMeta]) -> list[list[str]]:
    """Return groups of cases that hold the same image under different names, sorted."""
    owners: dict[str, set[str]] = {}
    for case, meta in metas.items():
        for name, source in meta.sources.items():
            if name != "seg":  # many cases may have the same empty segmentation
                owners.setdefault(source.voxels or source.sha256, set()).add(case)
    return sorted(sorted(cases) for cases in {frozenset(cases) for cases in owners.values() if len(cases) > 1})


def what_stands_out(dest: Path, metas: Mapping[str, CaseMeta], cases: Collection[str]) -> list[str]:
    """Return notes on the stores: an image that occurs in several cases, and cases that are not in the source."""
    notes = [f"the same image in several cases: {first_few(same)}" for same in shared_images(metas)]
    if gone := sorted(set(metas) - set(cases)):
        notes.append(
            f"not in this source, but still in {dest}: {first_few(gone)}; delete the stores that are no longer wanted"
        )
    return notes


def data_hash(metas: Iterable[CaseMeta]) -> str:
    """Return 16 hexadecimal digits that change with any source file, case name, task or version of the store."""
    lines = sorted(
        " ".join(
            [meta.case, meta.task.digest, *(f"{name}={source.sha256}" for name, source in sorted(meta.sources.items()))]
        )
        for meta in metas
    )
    return sha256("\n".join([f"layout {LAYOUT_VERSION}", *lines]).encode()).hexdigest()[:16]


def content_hash(dest: Path, cases: Iterable[str]) -> str:
    """Return 16 hexadecimal digits that change with anything that some cases were made from.

    Unlike the `data_hash` of a data set, it does not change with its other cases.

    Raises
    ------
    InputError
        If a case is not converted, or its store is damaged.
    """
    metas = [CaseStore(dest, case).meta for case in sorted(cases)]
    read_as = [f"{meta.case} {meta.label_convention} {' '.join(meta.allow)}" for meta in metas]
    return sha256("\n".join([data_hash(metas), *read_as]).encode()).hexdigest()[:16]


def fingerprint(metas: Mapping[str, CaseMeta], *, rejected: int, patients: int) -> dict[str, Any]:
    """Return a summary of a data set: counts, shapes, intensities, volumes."""
    found = list(metas.values())
    labelled = [meta for meta in found if meta.volumes_ml]
    task = found[0].task if found else None
    return {
        "task": task.model_dump(mode="json", exclude_none=True) if task else None,
        "cases": len(found),
        "rejected": rejected,
        "labelled": len(labelled),
        "patients": patients,
        "data_hash": data_hash(found),
        "layouts": dict(Counter(meta.layout for meta in found)),
        "modalities": {m: sum(m in meta.modalities for meta in found) for m in (task.modalities if task else ())},
        "source_shape": _spread([meta.geometry.shape for meta in found]),
        "cropped_shape": _spread([[b - a for a, b in meta.geometry.box] for meta in found]),
        "spacing_mm": _spread([meta.geometry.spacing for meta in found]),
        "intensity": {
            m: {
                "mean": _spread([[meta.scales[m].mean] for meta in found if m in meta.scales]),
                "std": _spread([[meta.scales[m].std] for meta in found if m in meta.scales]),
            }
            for m in (task.modalities if task else ())
        },
        "volume_ml": {
            region: _spread([[meta.volumes_ml[region]] for meta in labelled])
            for region in (task.regions if task else ())
        },
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


def data_task(dest: Path) -> Task:
    """Return the task of a converted data set.

    Raises
    ------
    InputError
        If `dataset.json` is missing or damaged, or there is no converted case.
    """
    try:
        return Task.model_validate(read_fingerprint(dest)["task"])
    except (KeyError, ValidationError):
        raise InputError(
            f"{dest / FINGERPRINT_FILE}: does not name the task of the data; `ccsd split {dest}` writes it again"
        ) from None


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

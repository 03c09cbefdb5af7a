"""Which cases train, validate and test: published lists, or seeded splits that keep a patient's scans together."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from preprocess.dataset import (
    PATIENTS_FILE,
    find_patients,
    kept_patients,
    read_patients,
    read_refusals,
    what_stands_out,
    write_tables,
)
from preprocess.errors import InputError, first_few
from preprocess.files import check_case_name, write_text
from preprocess.reading import read_table
from preprocess.source.accounts import read_files
from preprocess.source.layouts import UNUSED
from preprocess.store.meta import CaseMeta
from preprocess.task import Task

NAMES = ("train", "val", "test")
_SPELLINGS = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
FILE = "split.tsv"
_SCAN = re.compile(
    r"[-_ ](?:time ?point|tp|week|visit|scan|session|ses|fu|follow-?up|baseline|day|month|year|pre|post|exam)"
    r"[-_ ]?[a-z0-9]*$",
    re.IGNORECASE,
)
"""What names of several scans of one patient end in."""


@dataclass(frozen=True)
class Split:
    """Three disjoint lists of cases, each sorted, and the hash that names them in results.

    Attributes
    ----------
    task
        Label of the task that the cases were converted for (`Task.label`), empty where it is not known.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    task: str = ""

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that depend on which case is where, and on nothing else."""
        return sha256(self._table(("case", "split")).encode()).hexdigest()[:12]

    @property
    def by_name(self) -> dict[str, tuple[str, ...]]:
        """The lists by their names."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def as_tsv(self) -> str:
        """Return a table with the columns case, split and, where it is known, task."""
        return self._table(("case", "split", "task") if self.task else ("case", "split"))

    def _table(self, columns: tuple[str, ...]) -> str:
        rows = sorted((case, name) for name, cases in self.by_name.items() for case in cases)
        cells = [columns, *((case, name, self.task)[: len(columns)] for case, name in rows)]
        return "".join("\t".join(row) + "\n" for row in cells)

    @classmethod
    def of(cls, assigned: Mapping[str, str], task: str = "") -> "Split":
        """Return the split for a name by case."""
        train, val, test = (tuple(sorted(case for case, name in assigned.items() if name == n)) for n in NAMES)
        return cls(train, val, test, task)


def read_split(dest: Path) -> Split:
    """Return the split of a converted data set.

    Raises
    ------
    InputError
        If there is none or it is malformed.
    """
    path = dest / FILE
    if not path.is_file():
        raise InputError(f"{path}: no split yet; make one with `ccsd split {dest}`")
    return Split.of(read_list(path), next(iter(_listed_tasks(path)), ""))


def read_list(path: Path) -> dict[str, str]:
    """Return the split's name by case from a table with the columns case and split.

    Raises
    ------
    InputError
        If the file cannot be read, has other columns or names, or lists a case twice; the line is named.
    """
    assigned: dict[str, str] = {}
    for number, row in read_table(path, ("case", "split")).items():
        case, name = row["case"], _SPELLINGS.get(row["split"].lower(), row["split"].lower())
        if name not in NAMES:
            raise InputError(f"{path}, line {number}: split {row['split']!r}; allowed: {', '.join(NAMES)}")
        check_case_name(case, f"{path}, line {number}")
        if case in assigned:
            raise InputError(f"{path}, line {number}: case {case} is listed twice")
        assigned[case] = name
    return assigned


def _listed_tasks(path: Path) -> dict[str, int]:
    """Return what the column task of a list has, if there is one, with the first line of each."""
    found: dict[str, int] = {}
    for number, row in read_table(path, ("case", "split")).items():
        if task := row.get("task", ""):
            found.setdefault(task, number)
    return found


def make_split(
    dest: Path,
    *,
    listed: Path | None = None,
    seed: int = 0,
    train: float = 0.7,
    val: float = 0.1,
    max_refused: float = 1.0,
    patients: Path | None = None,
    allow_torn: bool = False,
) -> tuple[Split, list[str]]:
    """Write `split.tsv`, `cases.tsv` and `dataset.json` below `dest`; return the split and what to tell the user.

    Parameters
    ----------
    listed
        Table with the columns case and split to use; without it a split is drawn. A column task is compared.
    seed, train, val
        Seed and shares of a drawn split; the rest is tested.
    max_refused
        Share of all cases that conversion may have refused.
    patients
        Table with the columns case and patient, which wins over what layouts and names show; others are kept.
    allow_torn
        Whether a list may have scans of one patient in several parts.

    Raises
    ------
    InputError
        If a listed case is missing or lacks a segmentation, too many were refused, too few are left to draw from, a
        list tears a patient apart, or stores or list are of another task.
    """
    about = read_patients(patients) if patients else kept_patients(dest)
    metas, refusals = write_tables(dest, about), read_refusals(dest)
    _check_refusals(refusals, len(metas) + len(refusals), max_refused)
    if not metas:
        raise InputError(f"{dest}: no converted case; run `ccsd convert SRC {dest}` first")
    task = next(iter(metas.values())).task
    bare = [case for case, meta in metas.items() if not meta.volumes_ml]
    notes = [f"left out, refused by the conversion: {case}: {reason}" for case, reason in refusals.items()]
    notes += [f"left out, converted without a segmentation: {first_few(bare)}"] if bare else []
    notes += [f"no case has {m}" for m in task.modalities if not any(m in meta.modalities for meta in metas.values())]
    sourced = {file.case for file in read_files(dest) if file.role not in UNUSED}
    notes += what_stands_out(dest, metas, sourced or set(metas))
    notes += _about_patients(patients or dest / PATIENTS_FILE, about, metas, refusals)
    if listed is None:
        labelled = {case: meta for case, meta in metas.items() if meta.volumes_ml}
        split = replace(draw_split(labelled, seed=seed, train=train, val=val, about=about), task=task.label)
    else:
        assigned = read_list(listed)
        _check_task(listed, task)
        _check_list(assigned, metas, refusals, listed)
        split = Split.of(assigned, task.label)
        if torn := _torn(assigned, find_patients(metas, about)):
            text = f"{listed}: patients with scans in several parts: {first_few(torn, 3)}"
            if not allow_torn:
                raise InputError(
                    f"{text}; what is trained on would be tested. Correct the list, name the patients if they are "
                    "others (--patients), or allow it (--allow-torn-patients, split.allow_torn_patients)"
                )
            notes.append(text)
        unused = sorted(set(metas) - set(assigned) - set(bare))
        notes += [f"not in {listed}, unused: {first_few(unused)}"] if unused else []
    write_text(dest / FILE, split.as_tsv())
    return split, notes


def _about_patients(
    table: Path, about: Mapping[str, Mapping[str, str]], metas: Mapping[str, CaseMeta], refusals: Mapping[str, str]
) -> list[str]:
    """Return what to tell of the table of patients, or that names look as if one was needed."""
    if not about:
        scans: dict[str, list[str]] = {}
        for case, patient in find_patients(metas, {}).items():
            if patient == case and _SCAN.search(case):
                scans.setdefault(_SCAN.sub("", case), []).append(case)
        alike = [case for cases in scans.values() if len(cases) > 1 for case in cases]
        return (
            [f"names look like scans of one patient: {first_few(alike)}; --patients says who is who"] if alike else []
        )
    notes = []
    if strangers := sorted(set(about) - set(metas) - set(refusals)):
        notes.append(f"in {table}, but not converted: {first_few(strangers)}")
    if missing := sorted(set(metas) - set(about)):
        notes.append(f"not in {table}, each taken as the layout or its name says: {first_few(missing)}")
    return notes


def draw_split(
    metas: Mapping[str, CaseMeta],
    *,
    seed: int,
    train: float,
    val: float,
    about: Mapping[str, Mapping[str, str]] | None = None,
) -> Split:
    """Draw a split: a patient's scans stay together, and each part gets small and large tumours alike.

    Patients are ordered by tumour volume, shuffled among neighbours, and each goes to the part that is furthest below
    its share. A part whose share is not 0 gets at least one patient.

    Raises
    ------
    InputError
        If the shares are impossible or there are fewer patients than parts.
    """
    shares = np.array([train, val, 1 - train - val])
    if not (train > 0 and val >= 0 and train + val < 1):
        raise InputError(f"split shares train {train:g} and val {val:g}: both from 0, train above 0, their sum below 1")
    scans: dict[str, list[str]] = {}
    for case, patient in sorted(find_patients(metas, about or {}).items()):
        scans.setdefault(patient, []).append(case)
    parts = int((shares > 0).sum())
    if len(scans) < parts:
        raise InputError(
            f"a split into {parts} parts needs at least {parts} patients with a segmentation, and there are "
            f"{len(scans)}; --val 0 does without validation, --list names the cases of each part, and `ccsd predict` "
            "needs no split"
        )
    patients = _shuffled_by_volume(scans, metas, seed)
    chosen = _assign([len(scans[p]) for p in patients], shares)
    return Split.of({case: NAMES[k] for p, k in zip(patients, chosen, strict=True) for case in scans[p]})


def _shuffled_by_volume(scans: Mapping[str, list[str]], metas: Mapping[str, CaseMeta], seed: int) -> list[str]:
    """Return patients by mean tumour volume, shuffled within strata of ten or, in small cohorts, a third of all.

    The tumour of a case is its largest region.
    """
    volume = {p: float(np.mean([max(metas[c].volumes_ml.values()) for c in cases])) for p, cases in scans.items()}
    ordered = sorted(scans, key=lambda p: (volume[p], p))
    size = min(10, -(-len(ordered) // 3))
    rng = np.random.default_rng(seed)
    return [
        p for start in range(0, len(ordered), size) for p in rng.permutation(ordered[start : start + size]).tolist()
    ]


def _assign(sizes: list[int], shares: np.ndarray) -> list[int]:
    """Return the part of each patient; none of the parts with a share stays empty."""
    counts = np.zeros(len(shares))
    chosen = []
    for done, size in enumerate(sizes):
        missing = [k for k in np.flatnonzero(shares) if counts[k] == 0]
        behind = shares * (counts.sum() + size) - counts
        behind[shares == 0] = -np.inf
        last_chance = len(sizes) - done <= len(missing)
        part = missing[0] if last_chance and missing else int(np.argmax(behind))
        counts[part] += size
        chosen.append(int(part))
    return chosen


def _check_task(listed: Path, task: Task) -> None:
    for name, line in _listed_tasks(listed).items():
        if name not in (task.name, task.label):
            raise InputError(
                f"{listed}, line {line}: the list is of the task {name}, but the cases were converted for "
                f"{task.label}; convert them for the task of the list, or use a copy of it without the column task"
            )


def _check_refusals(refusals: Mapping[str, str], cases: int, share: float) -> None:
    if len(refusals) > share * cases:
        reasons = "".join(f"\n  {case}: {reason}" for case, reason in refusals.items())
        raise InputError(
            f"{len(refusals)} of {cases} cases were refused by the conversion, more than a share of {share:g}:"
            f"{reasons}\nmend or remove these cases, or allow the check, and convert again; or leave more out "
            "(--max-refused, convert.max_refused)"
        )


def _torn(assigned: Mapping[str, str], owners: Mapping[str, str]) -> list[str]:
    """Return the patients whose scans are in several parts, with an example."""
    scans: dict[str, dict[str, str]] = {}
    for case, name in sorted(assigned.items()):
        scans.setdefault(owners[case], {}).setdefault(name, case)
    return [
        f"{patient} ({', '.join(f'{case} {name}' for name, case in found.items())})"
        for patient, found in scans.items()
        if len(found) > 1
    ]


def _check_list(
    assigned: Mapping[str, str], metas: Mapping[str, CaseMeta], refusals: Mapping[str, str], path: Path
) -> None:
    missing = sorted(set(assigned) - set(metas))
    if missing:
        reasons = [f"{case} (refused: {refusals[case]})" if case in refusals else case for case in missing]
        raise InputError(
            f"{path}: {len(missing)} of {len(assigned)} listed cases are not converted: {first_few(reasons)}; "
            "convert them, or use a copy of the list without them"
        )
    bare = sorted(case for case in assigned if not metas[case].volumes_ml)
    if bare:
        raise InputError(
            f"{path}: cases without a segmentation cannot be in train, val or test: {first_few(bare)}; "
            "add the segmentations and convert again, or use a copy of the list without them"
        )

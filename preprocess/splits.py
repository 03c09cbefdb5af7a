"""Training, validation and test cases: published lists, or seeded splits that keep a patient's scans together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.dataset import find_patients
from preprocess.errors import InputError
from preprocess.files import check_case_name, write_text
from preprocess.reading import read_table
from preprocess.split_cases import listed_tasks, read_cohort
from preprocess.store.meta import CaseMeta

Shares = npt.NDArray[np.float64]
NAMES = ("train", "val", "test")
_SPELLINGS = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
FILE, FOLD = "split.tsv", "fold"


@dataclass(frozen=True)
class Split:
    """Three disjoint lists of cases, each sorted, and the hash that identifies them in results.

    Attributes
    ----------
    task
        Label of the task that the cases were converted for (`Task.label`), empty if unknown.
    folds
        For a fold, the hash of all folds together, which identifies results of the same folds.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    task: str = ""
    folds: str = ""

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that depend only on which case is where."""
        return text_hash(self._table(("case", "split")))

    @property
    def by_name(self) -> dict[str, tuple[str, ...]]:
        """The lists by their names."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def as_tsv(self) -> str:
        """Return a table with the columns case, split and, if known, task."""
        return self._table(("case", "split", "task") if self.task else ("case", "split"))

    def _table(self, columns: tuple[str, ...]) -> str:
        rows = sorted((case, name) for name, cases in self.by_name.items() for case in cases)
        return as_table([columns, *((case, name, self.task)[: len(columns)] for case, name in rows)])

    @classmethod
    def of(cls, assigned: Mapping[str, str], task: str = "") -> "Split":
        """Return the split for a mapping from case to train, val or test."""
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
    if has_folds(path):
        raise InputError(f"{path}: has folds; choose one, for example `ccsd train --set split.fold=0`")
    return Split.of(read_list(path), next(iter(listed_tasks(path)), ""))


def has_folds(path: Path) -> bool:
    """Return whether a list of cases has the column `fold`.

    Raises
    ------
    InputError
        If it cannot be read, or does not name cases.
    """
    return any(FOLD in row for row in read_table(path, ("case",)).values())


def as_table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as tab-separated text."""
    return "".join("\t".join(row) + "\n" for row in rows)


def text_hash(text: str) -> str:
    """Return 12 hexadecimal digits of a text's hash."""
    return sha256(text.encode()).hexdigest()[:12]


def read_list(path: Path) -> dict[str, str]:
    """Return train, val or test for each case of a table with the columns case and split.

    Raises
    ------
    InputError
        If the file cannot be read, has wrong columns or values, or lists a case twice; the line is named.
    """
    assigned: dict[str, str] = {}
    for number, row in read_table(path, ("case", "split")).items():
        case, name = row["case"], part_named(row["split"], f"{path}, line {number}")
        check_case_name(case, f"{path}, line {number}")
        if case in assigned:
            raise InputError(f"{path}, line {number}: case {case} is listed twice")
        assigned[case] = name
    return assigned


def part_named(text: str, where: str) -> str:
    """Return train, val or test for a spelling of it.

    Raises
    ------
    InputError
        If it is not such a spelling; the message begins with `where`.
    """
    name = _SPELLINGS.get(text.lower(), text.lower())
    if name not in NAMES:
        raise InputError(f"{where}: split {text!r}; allowed: {', '.join(NAMES)}")
    return name


def make_split(
    dest: Path,
    *,
    listed: Path | None = None,
    seed: int = 0,
    train: float = 0.7,
    val: float = 0.1,
    max_rejected: float = 1.0,
    patients: Path | None = None,
    allow_shared: bool = False,
) -> tuple[Split, list[str]]:
    """Write `split.tsv`, `cases.tsv` and `dataset.json` below `dest`; return the split and notes for the user.

    Parameters
    ----------
    listed
        Table with the columns case and split to use; without it a split is drawn. A column task must match.
    seed, train, val
        Seed and shares of a drawn split; the rest is for testing.
    max_rejected
        Share of all cases that conversion may have rejected.
    patients
        Table with the columns case and patient, which override layouts and names; other columns are kept.
    allow_shared
        Whether a list may have scans of one patient in several parts.

    Raises
    ------
    InputError
        If a listed case is missing or lacks a segmentation, too many were rejected, too few are left to draw from, a
        list has a patient in several parts, or stores or list belong to another task.
    """
    cohort = read_cohort(dest, max_rejected, patients)
    notes = cohort.notes
    if listed is None:
        split = replace(
            draw_split(cohort.labelled, seed=seed, train=train, val=val, about=cohort.about), task=cohort.task.label
        )
    else:
        assigned = read_list(listed)
        split = Split.of(assigned, cohort.task.label)
        notes = notes + cohort.check_list(assigned, listed) + cohort.check_patients(assigned, listed, allow_shared)
    write_text(dest / FILE, split.as_tsv())
    return split, notes


def draw_split(
    metas: Mapping[str, CaseMeta],
    *,
    seed: int,
    train: float,
    val: float,
    about: Mapping[str, Mapping[str, str]] | None = None,
) -> Split:
    """Draw a split: a patient's scans stay together, and each part gets both small and large tumours.

    Patients are ordered by tumour volume and shuffled among neighbours; each goes to the part that is furthest below
    its share. A part whose share is not 0 gets at least one patient.

    Raises
    ------
    InputError
        If the shares are invalid or there are fewer patients than parts.
    """
    shares = np.array([train, val, 1 - train - val])
    if not (train > 0 and val >= 0 and train + val < 1):
        raise InputError(
            f"split shares train {train:g} and val {val:g}: train must be above 0, val at least 0, their sum below 1"
        )
    patients = find_patients(metas, about or {})
    parts = int((shares > 0).sum())
    if len(set(patients.values())) < parts:
        raise InputError(
            f"a split into {parts} parts needs at least {parts} patients with a segmentation, but there are "
            f"{len(set(patients.values()))}; --val 0 skips validation, --list names the cases of each part, and "
            "`ccsd predict` needs no split"
        )
    return Split.of({case: NAMES[part] for case, part in share_out(metas, patients, shares, [seed]).items()})


def share_out(
    metas: Mapping[str, CaseMeta], patients: Mapping[str, str], shares: Shares, seed: Sequence[int]
) -> dict[str, int]:
    """Return the part of each case, as `draw_split` describes it.

    Parameters
    ----------
    patients
        The patient of each case.
    shares
        Share of the cases for each part; their sum is 1, and there are at least as many patients as parts.
    seed
        Numbers that together determine the draw.
    """
    scans: dict[str, list[str]] = {}
    for case in sorted(metas):
        scans.setdefault(patients[case], []).append(case)
    ordered = _shuffled_by_volume(scans, metas, seed)
    chosen = _assign([len(scans[p]) for p in ordered], shares)
    return {case: part for p, part in zip(ordered, chosen, strict=True) for case in scans[p]}


def _shuffled_by_volume(
    scans: Mapping[str, list[str]], metas: Mapping[str, CaseMeta], seed: Sequence[int]
) -> list[str]:
    """Return patients by mean tumour volume, shuffled within strata of ten or, in small cohorts, a third of all.

    The tumour volume of a case is that of its largest region.
    """
    volume = {p: float(np.mean([max(metas[c].volumes_ml.values()) for c in cases])) for p, cases in scans.items()}
    ordered = sorted(scans, key=lambda p: (volume[p], p))
    size = min(10, -(-len(ordered) // 3))
    rng = np.random.default_rng(seed)
    return [
        p for start in range(0, len(ordered), size) for p in rng.permutation(ordered[start : start + size]).tolist()
    ]


def _assign(sizes: list[int], shares: Shares) -> list[int]:
    """Return the part of each patient; no part with a share stays empty."""
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

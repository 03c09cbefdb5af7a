"""The cases of a split: which ones exist, which patients they belong to, and whether a list matches them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from preprocess.dataset import (
    PATIENTS_FILE,
    find_patients,
    kept_patients,
    read_patients,
    read_rejections,
    what_stands_out,
    write_tables,
)
from preprocess.errors import InputError, first_few
from preprocess.reading import read_table
from preprocess.source.accounts import read_files
from preprocess.source.layouts import UNUSED
from preprocess.store.meta import CaseMeta
from preprocess.task import Task

_SCAN = re.compile(
    r"[-_ ](?:time ?point|tp|week|visit|scan|session|ses|fu|follow-?up|baseline|day|month|year|pre|post|exam)"
    r"[-_ ]?[a-z0-9]*$",
    re.IGNORECASE,
)
"""Endings of the names of several scans of one patient."""


@dataclass(frozen=True)
class Cohort:
    """Converted cases to be split.

    Attributes
    ----------
    rejections
        Why conversion rejected cases.
    about
        The rows of a table of patients, by case.
    notes
        Notes for the user.
    """

    metas: Mapping[str, CaseMeta]
    rejections: Mapping[str, str]
    about: Mapping[str, Mapping[str, str]]
    notes: list[str]

    @property
    def task(self) -> Task:
        """The task that all of them were converted for."""
        return next(iter(self.metas.values())).task

    @property
    def labelled(self) -> dict[str, CaseMeta]:
        """Those with a segmentation."""
        return {case: meta for case, meta in self.metas.items() if meta.volumes_ml}

    @cached_property
    def patients(self) -> dict[str, str]:
        """The patient of each case."""
        return find_patients(self.metas, self.about)

    def check_list(self, cases: Collection[str], listed: Path) -> list[str]:
        """Return notes on the cases of a list.

        Raises
        ------
        InputError
            If one is missing or lacks a segmentation, or the list belongs to another task.
        """
        _check_task(listed, self.task)
        _check_list(cases, self.metas, self.rejections, listed)
        unused = sorted(set(self.labelled) - set(cases))
        return [f"not in {listed}, unused: {first_few(unused)}"] if unused else []

    def check_patients(self, assigned: Mapping[str, str], listed: Path, allow_shared: bool) -> list[str]:
        """Return a note on patients with scans in several parts, if that is allowed.

        Raises
        ------
        InputError
            If it is not allowed.
        """
        shared = _shared(assigned, self.patients)
        text = f"{listed}: patients with scans in several parts: {first_few(shared, 3)}"
        if shared and not allow_shared:
            raise InputError(
                f"{text}; a patient would be both trained and tested on. Correct the list, name the patients if these "
                "are wrong (--patients), or allow it (--allow-shared-patients, split.allow_shared_patients)"
            )
        return [text] if shared else []


def read_cohort(dest: Path, max_rejected: float, patients: Path | None) -> Cohort:
    """Write `cases.tsv` and `dataset.json` below `dest`, and return the cases; see `make_split` for the parameters.

    Raises
    ------
    InputError
        If no case was converted, too many were rejected, or they belong to different tasks.
    """
    about = read_patients(patients) if patients else kept_patients(dest)
    metas, rejections = write_tables(dest, about), read_rejections(dest)
    _check_rejections(rejections, len(metas) + len(rejections), max_rejected)
    if not metas:
        raise InputError(f"{dest}: no converted case; run `ccsd convert SRC {dest}` first")
    task = next(iter(metas.values())).task
    bare = [case for case, meta in metas.items() if not meta.volumes_ml]
    notes = [f"left out, rejected by the conversion: {case}: {reason}" for case, reason in rejections.items()]
    notes += [f"left out, converted without a segmentation: {first_few(bare)}"] if bare else []
    notes += [f"no case has {m}" for m in task.modalities if not any(m in meta.modalities for meta in metas.values())]
    sourced = {file.case for file in read_files(dest) if file.role not in UNUSED}
    notes += what_stands_out(dest, metas, sourced or set(metas))
    notes += _about_patients(patients or dest / PATIENTS_FILE, about, metas, rejections)
    return Cohort(metas, rejections, about, notes)


def _about_patients(
    table: Path, about: Mapping[str, Mapping[str, str]], metas: Mapping[str, CaseMeta], rejections: Mapping[str, str]
) -> list[str]:
    """Return notes on the table of patients, or that names look as if one was needed."""
    if not about:
        scans: dict[str, list[str]] = {}
        for case, patient in find_patients(metas, {}).items():
            if patient == case and _SCAN.search(case):
                scans.setdefault(_SCAN.sub("", case), []).append(case)
        alike = [case for cases in scans.values() if len(cases) > 1 for case in cases]
        return [f"names look like scans of one patient: {first_few(alike)}; --patients assigns them"] if alike else []
    notes = []
    if strangers := sorted(set(about) - set(metas) - set(rejections)):
        notes.append(f"in {table}, but not converted: {first_few(strangers)}")
    if missing := sorted(set(metas) - set(about)):
        notes.append(f"not in {table}, patient taken from the layout or the name: {first_few(missing)}")
    return notes


def listed_tasks(path: Path) -> dict[str, int]:
    """Return the values in the column task of a list, if there is one, with the first line of each."""
    found: dict[str, int] = {}
    for number, row in read_table(path, ("case",)).items():
        if task := row.get("task", ""):
            found.setdefault(task, number)
    return found


def _check_task(listed: Path, task: Task) -> None:
    for name, line in listed_tasks(listed).items():
        if name not in (task.name, task.label):
            raise InputError(
                f"{listed}, line {line}: the list is for the task {name}, but the cases were converted for "
                f"{task.label}; convert them for the task of the list, or use a copy of it without the column task"
            )


def _check_rejections(rejections: Mapping[str, str], cases: int, share: float) -> None:
    if len(rejections) > share * cases:
        reasons = "".join(f"\n  {case}: {reason}" for case, reason in rejections.items())
        raise InputError(
            f"{len(rejections)} of {cases} cases were rejected by the conversion, more than the allowed share of "
            f"{share:g}:{reasons}\nfix or remove these cases, or allow the check, and convert again; or allow more to "
            "be left out (--max-rejected, convert.max_rejected)"
        )


def _shared(assigned: Mapping[str, str], owners: Mapping[str, str]) -> list[str]:
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
    assigned: Collection[str], metas: Mapping[str, CaseMeta], rejections: Mapping[str, str], path: Path
) -> None:
    missing = sorted(set(assigned) - set(metas))
    if missing:
        reasons = [f"{case} (rejected: {rejections[case]})" if case in rejections else case for case in missing]
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

"""Folds: every case outside a fixed test set is held out once, and trained on in all other folds.

`split.tsv` has a column for them: a fold tests on its own cases, validates on some of the others and trains on the
rest. Cases whose `split` is `test` are in no fold and are never trained on.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from preprocess.errors import InputError
from preprocess.files import check_case_name, write_text
from preprocess.reading import read_table
from preprocess.split_cases import Cohort, listed_tasks, read_cohort
from preprocess.splits import FILE, FOLD, Split, as_table, has_folds, part_named, read_list, share_out, text_hash
from preprocess.store.meta import CaseMeta

VALIDATES = "validates"
"""Column with the folds in which a case is used for validation, such as `0+3`."""
_NUMBER = re.compile(r"[0-9]{1,4}")
FEWEST = 2
"""Smallest number of folds, and of patients that a fold needs for training and validation."""


@dataclass(frozen=True)
class Folds:
    """Which cases each fold holds out, which of the others it validates on, and which are in no fold.

    Attributes
    ----------
    held_out
        The fold of each case.
    validates
        The folds in which a case is used for validation; in the others that do not hold it out, it is trained on.
    test
        Cases of a fixed test set, sorted.
    task
        As in `Split`.
    """

    held_out: Mapping[str, int]
    validates: Mapping[str, tuple[int, ...]]
    test: tuple[str, ...] = ()
    task: str = ""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The folds."""
        return tuple(sorted(set(self.held_out.values())))

    @cached_property
    def hash(self) -> str:
        """12 hexadecimal digits that depend only on which case is where in each fold."""
        return text_hash(self._table(("case", "split", FOLD, VALIDATES)))

    def split(self, number: int) -> Split:
        """Return the split of a fold.

        Raises
        ------
        InputError
            If there is no such fold.
        """
        if number not in self.numbers:
            raise InputError(f"no fold {number} in {FILE}; there are {', '.join(map(str, self.numbers))}")
        parts = {
            case: "test" if fold == number else "val" if number in self.validates.get(case, ()) else "train"
            for case, fold in self.held_out.items()
        }
        return replace(Split.of(parts, self.task), folds=self.hash)

    @property
    def fixed(self) -> Split:
        """The split into all cases that are in folds, and the fixed test set."""
        return Split(tuple(sorted(self.held_out)), (), self.test, self.task, self.hash)

    def as_tsv(self) -> str:
        """Return a table with the columns case, split, fold, validates and, if known, task."""
        return self._table(("case", "split", FOLD, VALIDATES, *(["task"] if self.task else [])))

    def _table(self, columns: tuple[str, ...]) -> str:
        rows = [
            (case, "train", str(fold), "+".join(map(str, self.validates.get(case, ()))), self.task)
            for case, fold in self.held_out.items()
        ]
        rows += [(case, "test", "", "", self.task) for case in self.test]
        return as_table([columns, *(row[: len(columns)] for row in sorted(rows))])


def read_folds(dest: Path) -> Folds | None:
    """Return the folds of a converted data set; None if its split has no folds, or there is no split.

    Raises
    ------
    InputError
        If its split is malformed.
    """
    path = dest / FILE
    return read_fold_list(path) if path.is_file() and has_folds(path) else None


def read_fold_list(path: Path) -> Folds:
    """Return the folds in a table with the columns case and fold; split, validates and task are optional.

    Raises
    ------
    InputError
        If the file cannot be read, a case is listed twice or has no fold and is not a test case, there is only one
        fold, or a case validates in its own fold or in one that does not exist; the line is named.
    """
    held_out: dict[str, int] = {}
    validates: dict[str, tuple[int, ...]] = {}
    test: list[str] = []
    lines = read_table(path, ("case", FOLD))
    for number, row in lines.items():
        case, where = row["case"], f"{path}, line {number}"
        check_case_name(case, where)
        if case in held_out or case in test:
            raise InputError(f"{where}: case {case} is listed twice")
        if (fold := _fold_of(row, where)) is None:
            test.append(case)
        else:
            held_out[case] = fold
            validates[case] = _numbers(row.get(VALIDATES, ""), f"{where}: {VALIDATES}")
    folds = Folds(held_out, validates, tuple(sorted(test)), next(iter(listed_tasks(path)), ""))
    if len(folds.numbers) < FEWEST:
        found = f"all cases are in fold {folds.numbers[0]}" if held_out else "no case is in a fold"
        raise InputError(f"{path}: {found}; give two or more folds, each of which holds out other cases")
    for case, own in validates.items():
        for number in own:
            if number == held_out[case] or number not in folds.numbers:
                why = "holds it out" if number == held_out[case] else "does not exist"
                raise InputError(f"{path}: case {case} cannot be used for validation in fold {number}, which {why}")
    return folds


def _fold_of(row: Mapping[str, str], where: str) -> int | None:
    """Return the fold of a row; None for a case that is only for testing."""
    case, part, fold = row["case"], row.get("split", ""), row[FOLD]
    name = part_named(part, where) if part else "train"
    if name == "val":
        raise InputError(
            f"{where}: case {case} is for validation, but folds draw their validation cases themselves; give it a fold"
        )
    if name == "test" and fold:
        raise InputError(
            f"{where}: case {case} is for testing, but it is also in fold {fold}, and the other folds would train on "
            "it; remove one of the two"
        )
    if name == "train" and not _NUMBER.fullmatch(fold):
        raise InputError(
            f"{where}: case {case} has the fold {fold!r}; give each case a number from 0 up, or, if no fold may "
            "train on it, leave the fold empty and put `test` in a column `split`"
        )
    return int(fold) if fold else None


def _numbers(text: str, where: str) -> tuple[int, ...]:
    parts = text.split("+") if text else []
    if not all(_NUMBER.fullmatch(part) for part in parts):
        raise InputError(f"{where}: {text!r}; give folds such as 0+3, or nothing")
    return tuple(sorted({int(part) for part in parts}))


def make_folds(
    dest: Path,
    *,
    count: int | None = None,
    listed: Path | None = None,
    seed: int = 0,
    val: float = 0.1,
    max_rejected: float = 1.0,
    patients: Path | None = None,
    allow_shared: bool = False,
) -> tuple[Folds, list[str]]:
    """Write `split.tsv` with folds, `cases.tsv` and `dataset.json`; return the folds and notes for the user.

    Parameters
    ----------
    count
        How many folds to draw; not needed if the list has them.
    listed
        Table with the columns case and fold, or case and split. In the latter case folds are drawn among its cases,
        except those for testing, which are in no fold.
    seed, val
        Seed of the draw, and the share of the cases in folds that each fold validates on.
    max_rejected, patients, allow_shared
        As in `preprocess.splits.make_split`.

    Raises
    ------
    InputError
        As in `make_split`; also if the list has a number of folds other than `count`, or there are too few patients.
    """
    if not 0 <= val < 1:
        raise InputError(f"validation share {val:g}: give 0 or more, and less than 1 (--val)")
    cohort = read_cohort(dest, max_rejected, patients)
    folds, notes = (
        (_drawn(cohort.labelled, cohort, count, seed), []) if listed is None else _listed(cohort, listed, count, seed)
    )
    folds = replace(folds, task=cohort.task.label)
    if not any(folds.validates.values()) and not _lists_validation(listed):
        folds = replace(folds, validates=_draw_validation(cohort, folds, seed, val))
    if listed is not None:
        for assigned in _assignments(folds):
            notes += cohort.check_patients(assigned, listed, allow_shared)
    if empty := [number for number in folds.numbers if not folds.split(number).train]:
        raise InputError(
            f"{listed or dest}: fold {empty[0]} has nothing to train on: all other cases are for validation"
        )
    write_text(dest / FILE, folds.as_tsv())
    return folds, [*cohort.notes, *dict.fromkeys(notes)]


def draw_folds(metas: Mapping[str, CaseMeta], patients: Mapping[str, str], count: int, *, seed: int) -> dict[str, int]:
    """Draw folds as splits are drawn: a patient's scans stay together, and each fold gets small and large tumours.

    Raises
    ------
    InputError
        If there are fewer patients than folds, or fewer than two folds.
    """
    found = len({patients[case] for case in metas})
    if count < FEWEST:
        raise InputError(f"{count} folds: give two or more")
    if found < count:
        raise InputError(
            f"{count} folds need at least {count} patients with a segmentation outside a fixed test set, but there are "
            f"{found}; use fewer folds (--folds, split.folds)"
        )
    return share_out(metas, patients, np.full(count, 1 / count), [seed])


def _drawn(metas: Mapping[str, CaseMeta], cohort: Cohort, count: int | None, seed: int) -> Folds:
    if count is None:
        raise InputError("give the number of folds (--folds), or a list with the column `fold` (--list)")
    return Folds(draw_folds(metas, cohort.patients, count, seed=seed), {})


def _listed(cohort: Cohort, listed: Path, count: int | None, seed: int) -> tuple[Folds, list[str]]:
    if has_folds(listed):
        folds = read_fold_list(listed)
        notes = cohort.check_list([*folds.held_out, *folds.test], listed)
        if count not in (None, len(folds.numbers)):
            raise InputError(
                f"{listed}: has {len(folds.numbers)} folds ({', '.join(map(str, folds.numbers))}), not {count}; leave "
                "the number out (--folds, split.folds), or give a list without the column `fold`"
            )
        return folds, notes
    assigned = read_list(listed)
    notes = cohort.check_list(assigned, listed)
    test = tuple(sorted(case for case, name in assigned.items() if name == "test"))
    rest = {case: cohort.metas[case] for case, name in assigned.items() if name != "test"}
    drawn = _drawn(rest, cohort, count, seed)
    notes.append(
        f"{listed} has no folds: {count} were drawn among {len(rest)} cases; {len(test)} test cases are in none"
    )
    return replace(drawn, test=test), notes


def _lists_validation(listed: Path | None) -> bool:
    return listed is not None and any(VALIDATES in row for row in read_table(listed, ("case",)).values())


def _draw_validation(cohort: Cohort, folds: Folds, seed: int, val: float) -> dict[str, tuple[int, ...]]:
    """Draw the validation cases of each fold from the cases that it does not hold out."""
    chosen: dict[str, list[int]] = {case: [] for case in folds.held_out}
    for number in folds.numbers if val > 0 else ():
        rest = {case: cohort.metas[case] for case, fold in folds.held_out.items() if fold != number}
        share = val * len(folds.held_out) / len(rest)
        patients = len({cohort.patients[case] for case in rest})
        if patients < FEWEST or share >= 1:
            raise InputError(
                f"fold {number} of {len(folds.numbers)} has {patients} patients for training and validation, too few "
                f"to validate on a share of {val:g} of all cases; use a smaller share (--val, split.val; 0 skips "
                "validation), or other folds"
            )
        for case, part in share_out(rest, cohort.patients, np.array([1 - share, share]), [seed, number + 1]).items():
            if part:
                chosen[case].append(number)
    return {case: tuple(numbers) for case, numbers in chosen.items()}


def _assignments(folds: Folds) -> Iterable[dict[str, str]]:
    """Yield the part of each case: first its fold, then for each fold whether the case is trained or validated on."""
    yield {case: f"fold {fold}" for case, fold in folds.held_out.items()} | dict.fromkeys(folds.test, "test")
    for number in folds.numbers:
        parts = folds.split(number).by_name
        yield {case: f"{name} in fold {number}" for name in ("train", "val") for case in parts[name]}

"""Select the cases that models are scored on, and warn if a model knows some of them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ccsd.errors import UsageError
from ccsd.inference.ensemble import Member
from ccsd.study import checked_split, split_for
from preprocess.dataset import read_fingerprint
from preprocess.errors import first_few
from preprocess.folds import Folds, read_folds
from preprocess.splits import FILE as SPLIT_FILE
from preprocess.splits import Split, read_split
from preprocess.task import Task


def split_to_score(members: Sequence[Member], data: Path, task: Task, fold: int | None) -> tuple[Split, int | None]:
    """Return the split whose test cases models are scored on, and its fold, if it has one.

    Parameters
    ----------
    fold
        The fold to score; by default that of the models. Models of several folds, or of none, are scored on the cases
        that are in no fold.

    Raises
    ------
    UsageError
        If there are no such cases, because one of the models was, or may have been, trained on each.
    InputError
        If there is no split or no such fold, or if data or split belong to another task.
    """
    folds, first = read_folds(data), members[0].where
    if folds is None:
        return split_for(data, first, task, fold), fold
    own = {member.fold for member in members}
    chosen = next(iter(own)) if fold is None and len(own) == 1 else fold
    split = folds.fixed if chosen is None else folds.split(chosen)
    if not split.test:
        raise UsageError(_no_case(data, folds, several=len(own) > 1))
    return checked_split(data, first, task, split), chosen


def _no_case(data: Path, folds: Folds, *, several: bool) -> str:
    numbers = ", ".join(map(str, folds.numbers))
    if not several:
        return f"{data / SPLIT_FILE} has the folds {numbers}, and the model belongs to none; choose one with --fold"
    return (
        f"{data / SPLIT_FILE} has no case outside the folds {numbers}: models of several folds cannot be scored "
        "together on cases that one of them was trained on. Score each on its own fold, or create folds with a fixed "
        "test set (`ccsd split --list` with cases whose split is test)"
    )


def warn_of_known_cases(members: Sequence[Member], data: Path, split: Split) -> None:
    """Warn of models that know some of the test cases: they were trained or selected with them."""
    here = read_fingerprint(data).get("data_hash")
    for member in members:
        if text := _known(member, data, split, same_data=member.record.data_hash == here):
            print(f"warning: {member.where} {text}; score it with the split of its training", file=sys.stderr)


def _known(member: Member, data: Path, split: Split, *, same_data: bool) -> str:
    folder = member.saved.folder
    if folder is None or not (folder / SPLIT_FILE).is_file():  # packed, or a run of an earlier version
        if not same_data or member.record.split_hash in ("", split.hash):
            return ""
        return (
            f"was trained with another split of {data}: the scores are too good if that included any of the test cases"
        )
    trained = read_split(folder)
    if not (known := sorted({*trained.train, *trained.val} & set(split.test))):
        return ""
    what = f"{len(known)} of the {len(split.test)} test cases ({first_few(known, 3)})"
    if same_data:
        return f"was trained or selected with {what}: the scores are too good"
    return (
        f"was trained or selected with cases that have the same names as {what}: the scores are too good if they are "
        "the same cases"
    )

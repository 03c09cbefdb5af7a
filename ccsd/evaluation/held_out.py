"""Which cases models are scored on, and whether one of the models knows them."""

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
    """Return the split of whose test cases models are scored, and its fold, if it is one.

    Parameters
    ----------
    fold
        The fold that is wanted; by default that of the models. Models of several folds, and those of none, are scored
        on the cases that are in no fold.

    Raises
    ------
    UsageError
        If there are no such cases: each was trained on by one of the models, or may have been.
    InputError
        If there is no split, no such fold, or data or split are of another task.
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
        return f"{data / SPLIT_FILE} has the folds {numbers}, and the model is of none; choose one with --fold"
    return (
        f"{data / SPLIT_FILE} has no case outside the folds {numbers}: models of several folds cannot be scored "
        "together on cases that one of them was trained on. Score each on its own fold, or make folds with a fixed "
        "test set (`ccsd split --list` with cases whose split is test)"
    )


def warn_of_known_cases(members: Sequence[Member], data: Path, split: Split) -> None:
    """Say which models know some of the test cases: they trained on them, or were chosen by them."""
    here = read_fingerprint(data).get("data_hash")
    for member in members:
        if text := _known(member, data, split, same_data=member.record.data_hash == here):
            print(f"warning: {member.where} {text}; score it by the split of its training", file=sys.stderr)


def _known(member: Member, data: Path, split: Split, *, same_data: bool) -> str:
    folder = member.saved.folder
    if folder is None or not (folder / SPLIT_FILE).is_file():  # packed, or a run of an earlier version
        if not same_data or member.record.split_hash in ("", split.hash):
            return ""
        return f"was trained by another split of {data}: the scores are too good if it had any of the test cases"
    trained = read_split(folder)
    if not (known := sorted({*trained.train, *trained.val} & set(split.test))):
        return ""
    what = f"{len(known)} of the {len(split.test)} test cases ({first_few(known, 3)})"
    if same_data:
        return f"was trained or chosen with {what}: the scores are too good"
    return f"was trained or chosen with cases that are called like {what}: the scores are too good if they are the same"

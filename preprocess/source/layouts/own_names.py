"""Data sets that no layout describes: the last word of a file name determines the file's role.

The part before the word is the name of the case; a file named by the word alone belongs to the case that its folder is
named after. Words that refer, or may refer, to something else are never read as a sequence or a tumour.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from preprocess.source.layouts.doubts import doubts
from preprocess.source.layouts.layout import SEGMENTATION, Candidate, Key, Layout, Match, without_own_folder
from preprocess.source.layouts.words import LABEL_WORDS, is_foreign, is_of_tumour, words_of
from preprocess.source.nifti import stem
from preprocess.task import Task

__all__ = ["GENERIC", "LABEL_WORDS", "is_foreign", "own_candidates"]

_BIDS_CONTRAST = re.compile(r"(?:^|_)ce-[a-z][a-z0-9]*(?=_|$)", re.IGNORECASE)
_BIDS_DETAIL = re.compile(r"_(?:acq|rec|run)-[a-z0-9]+(?=_|$)", re.IGNORECASE)
_CONTRAST = re.compile(r"(?:^|[-_. ])(?<!ses-)(?:ce|gd|gad|gado|gadolinium|contrast|postcontrast|post)$", re.IGNORECASE)
_PLAIN = re.compile(
    r"(?:^|[-_. ])(?<!ses-)(?:pre|native|(?:pre|non?|without)[-_. ]?(?:contrast|enhanced|ce|gd|gad|gado|gadolinium))$",
    re.IGNORECASE,
)

GENERIC = Layout(name="generic", case="-", files={"t1": ("{case}_t1",)})
"""Name of this rule where a layout is named."""


def own_candidates(
    paths: Iterable[Path], places: Collection[Path], task: Task
) -> tuple[list[Candidate], dict[Key, str]]:
    """Return the roles of files by the last words of their names, and what is ambiguous, by the key of the case.

    Parameters
    ----------
    places
        The sources, as absolute paths.
    """
    found = [candidate for path in paths if (candidate := _candidate(path, task))]
    found = _with_odd_labels(found)
    return found, doubts(found, places, task)


def _candidate(path: Path, task: Task) -> Candidate | None:
    words, name = words_of(task), stem(path) or path.name
    split = words.split(name)
    if split is None or is_foreign(name, task):
        return None
    case, word = split
    role = SEGMENTATION if word.lower() in LABEL_WORDS else words.images[word.lower()]
    if case.lower().startswith("sub-"):
        case = _BIDS_DETAIL.sub("", case)
    if role == "t1":
        role, case = _contrast(case)
    folder = path.parent
    if folder.name.lower() in (*words.images, *LABEL_WORDS):  # a folder per sequence
        folder = folder.parent
    case = case or folder.name
    root = without_own_folder(f"{folder}/", case)
    return Candidate(path, GENERIC, Match(role, 0, f"*{word}", root, case))


def _contrast(case: str) -> tuple[str, str]:
    """Return whether a T1 has contrast, judged by the last words before it, and the name without these words."""
    role = "t1"
    if _BIDS_CONTRAST.search(case):
        role, case = "t1ce", _BIDS_CONTRAST.sub("", case)
    if _PLAIN.search(case):
        return role, _PLAIN.sub("", case)
    return ("t1ce", _CONTRAST.sub("", case)) if _CONTRAST.search(case) else (role, case)


def _with_odd_labels(found: list[Candidate]) -> list[Candidate]:
    """Assign a segmentation with additional words to the only case of its folder, if that has no segmentation by name.

    The words must describe a tumour, or how it was drawn, and the folder or the segmentation must be named after the
    case; otherwise it may belong to a case without images.
    """
    cases = {candidate.key: candidate.match for candidate in found if candidate.match.role != SEGMENTATION}
    labelled = {candidate.key for candidate in found if candidate.match.role == SEGMENTATION}
    near: dict[Path, set[Key]] = defaultdict(set)
    for candidate in found:
        if candidate.key in cases:
            near[candidate.path.parent].add(candidate.key)
    result = []
    for candidate in found:
        keys, match = near[candidate.path.parent], candidate.match
        if candidate.key not in cases and len(keys) == 1 and not keys & labelled:
            case = cases[next(iter(keys))]
            if _speaks_of(case.case, match.case, candidate.path.parent):
                pattern = f"{match.pattern} beside the images of one case"
                match = replace(match, root=case.root, case=case.case, pattern=pattern)
        result.append(replace(candidate, match=match))
    return result


def _speaks_of(case: str, name: str, folder: Path) -> bool:
    """Return whether a segmentation's name, without its last word, is that of a case followed by words for a tumour."""
    own = re.match(rf"{re.escape(case)}[-_. ]", name)
    if own is None:
        return folder.name == case and is_of_tumour(name)
    return is_of_tumour(name[own.end() :])

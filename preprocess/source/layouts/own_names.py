"""Folders of one's own, which no layout describes: a file's role by the word that its name ends in.

What stands before the word is the name of the case; a file that is named by the word alone belongs to the case that
its folder is named after. Words that speak of something else, or may do so, are never read as a sequence or a tumour.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from preprocess.errors import first_few
from preprocess.source.layouts.layout import SEGMENTATION, Candidate, Key, Layout, Match, without_own_folder
from preprocess.source.nifti import stem
from preprocess.task import ALIASES, Task

LABEL_WORDS = ("seg", "segm", "segmentation", "label", "labels", "mask")
_SPELLINGS = {"t2_flair": "flair", "t2 flair": "flair", "t2.flair": "flair"}
_FOREIGN = (
    "skull", "stripped", "unstripped", "parenchyma", "ventricle", "ventricles", "tissue", "tissues",
    "gm", "wm", "csf", "parc", "parcellation", "aparc", "aseg", "bias", "biasfield", "bet", "hdbet",
    "probseg", "probability", "probabilities",
    "adc", "dwi", "dti", "swi", "asl", "dsc", "dce", "cbf", "cbv", "mtt",
)  # fmt: skip
_BIDS_CONTRAST = re.compile(r"(?:^|_)ce-[a-z0-9]+(?=_|$)", re.IGNORECASE)
_CONTRAST = re.compile(r"(?:^|[-_. ])(?:ce|gd|gad|gado|gadolinium|contrast|postcontrast|post)$", re.IGNORECASE)
_PLAIN = re.compile(r"(?:^|[-_. ])(?:pre|precontrast|native)$", re.IGNORECASE)
_MAYBE_CONTRAST = re.compile(r"[-_. ](?:ce|gd|gad|gado|gadolinium|contrast|postcontrast|post)[-_. ]", re.IGNORECASE)
_TIME = re.compile(r"[-_. ](?:pre|post)$", re.IGNORECASE)

GENERIC = Layout(name="generic", case="-", files={"t1": ("{case}_t1",)})
"""Stands for the rule where a layout is named."""


@dataclass(frozen=True)
class _Words:
    """What the words in names mean for a task: its own names of sequences come before what they mean elsewhere."""

    images: dict[str, str]
    file: re.Pattern[str]
    foreign: re.Pattern[str]

    def split(self, name: str) -> tuple[str, str] | None:
        """Return what stands before the last word, and the word, if it means a sequence or a segmentation."""
        match = self.file.fullmatch(name)
        return None if match is None else (match["case"] or "", match["word"])


@cache
def _words(sequences: tuple[str, ...]) -> _Words:
    images = {**ALIASES, **_SPELLINGS, **{name: name for name in sequences}}
    endings = "|".join(sorted((re.escape(word) for word in (*images, *LABEL_WORDS)), key=len, reverse=True))
    foreign = "|".join(word for word in _FOREIGN if word not in sequences)
    return _Words(
        images,
        re.compile(rf"(?:(?P<case>.+?)[-_. ])?(?P<word>{endings})", re.IGNORECASE),
        re.compile(rf"(?:^|[-_. ])(?:brain(?!tumou?r)[a-z0-9]*|{foreign})(?=[-_. ]|$)", re.IGNORECASE),
    )


def is_foreign(name: str, task: Task) -> bool:
    """Return whether a file's name speaks of something that is neither a sequence nor a tumour, such as the brain."""
    words = _words(task.modalities)
    if words.foreign.search(name):
        return True
    whole = words.split(name)
    if whole is None or whole[1].lower() != "mask":
        return False
    before = words.split(whole[0])  # the mask of an image is that of its brain
    return before is not None and before[1].lower() not in LABEL_WORDS


def own_candidates(paths: Iterable[Path], task: Task) -> tuple[list[Candidate], dict[Key, str]]:
    """Return what files are by the words that their names end in, and what is ambiguous by the key of the case."""
    found = [candidate for path in paths if (candidate := _candidate(path, task))]
    found = _with_odd_labels(found)
    return found, _ambiguities(found)


def _candidate(path: Path, task: Task) -> Candidate | None:
    words, name = _words(task.modalities), stem(path) or path.name
    split = words.split(name)
    if split is None or is_foreign(name, task):
        return None
    case, word = split
    role = SEGMENTATION if word.lower() in LABEL_WORDS else words.images[word.lower()]
    if role == "t1":
        role, case = _contrast(case)
    folder = path.parent
    if folder.name.lower() in (*words.images, *LABEL_WORDS):  # a folder per sequence
        folder = folder.parent
    case = case or folder.name
    root = without_own_folder(f"{folder}/", case)
    return Candidate(path, GENERIC, Match(role, 0, f"*{word}", root, case))


def _contrast(case: str) -> tuple[str, str]:
    """Return whether a T1 is one with contrast by the last words before it, and the name without them."""
    role = "t1"
    if _BIDS_CONTRAST.search(case):
        role, case = "t1ce", _BIDS_CONTRAST.sub("", case)
    if _CONTRAST.search(case):
        return "t1ce", _CONTRAST.sub("", case)
    return role, _PLAIN.sub("", case)


def _with_odd_labels(found: list[Candidate]) -> list[Candidate]:
    """Give a segmentation with a name of its own to the one case of its folder, if that has none by name.

    The folder or the segmentation has to be named after the case: it may be of a case without images otherwise.
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
            if candidate.path.parent.name == case.case or re.match(rf"{re.escape(case.case)}[-_. ]", match.case):
                pattern = f"{match.pattern} beside the images of one case"
                match = replace(match, root=case.root, case=case.case, pattern=pattern)
        result.append(replace(candidate, match=match))
    return result


def _ambiguities(found: list[Candidate]) -> dict[Key, str]:
    """Return what names leave open, by the case."""
    problems: dict[Key, str] = {}
    for candidate in found:
        if candidate.match.role == "t1" and _MAYBE_CONTRAST.search(stem(candidate.path) or ""):
            problems[candidate.key] = f"{candidate.path} may be T1 with contrast or without"
    keys = {candidate.key for candidate in found}
    for key in keys:
        layout, root, case = key
        if _TIME.search(case) and (plain := (layout, root, _TIME.sub("", case))) in keys:
            text = f"{root}: 'pre' and 'post' in the names may mean contrast or surgery"
            problems |= {key: text, plain: text}
    for key, text in _single_files(found).items():
        problems[key] = text
    return {
        key: f"{text}; rename the files, or describe them in a layout (docs/data.md)" for key, text in problems.items()
    }


def _single_files(found: list[Candidate]) -> dict[Key, str]:
    """Return the cases of folders in which every file has another name before its word: one case, or many."""
    counts = Counter(candidate.key for candidate in found)
    folders: dict[Path, list[Candidate]] = defaultdict(list)
    for candidate in found:
        folders[candidate.path.parent].append(candidate)
    problems: dict[Key, str] = {}
    for folder, files in folders.items():
        roles = {candidate.match.role for candidate in files}
        if len(files) > 1 and len(roles) > 1 and all(counts[candidate.key] == 1 for candidate in files):
            names = first_few([candidate.path.name for candidate in files])
            problems |= {c.key: f"{folder} may hold one case or one per file: {names}" for c in files}
    return problems

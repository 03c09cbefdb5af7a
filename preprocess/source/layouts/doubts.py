"""What names of one's own leave open, so that the cases are refused: contrast, surgery, one case or several."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from preprocess.errors import first_few
from preprocess.source.layouts.layout import SEGMENTATION, Candidate, Key
from preprocess.source.layouts.words import is_technique, may_be_contrast
from preprocess.source.nifti import stem
from preprocess.task import Task

_TIME = re.compile(r"[-_. ](?:pre|post)$", re.IGNORECASE)
_SEPARATOR = re.compile("[-_. ]")


def doubts(found: Sequence[Candidate], places: Sequence[Path], task: Task) -> dict[Key, str]:
    """Return what names leave open, by the case.

    Parameters
    ----------
    places
        The sources, as absolute paths: folders above them say nothing.
    """
    images = [candidate for candidate in found if candidate.match.role != SEGMENTATION]
    problems = {
        **_contrast(images, places),
        **_no_names(images, task),
        **_torn(images),
        **_times(found),
        **_single_files(images, [c for c in found if c.match.role == SEGMENTATION]),
    }
    return {
        key: f"{text}; rename the files, or describe them in a layout (docs/data.md)" for key, text in problems.items()
    }


def _contrast(images: Sequence[Candidate], places: Sequence[Path]) -> dict[Key, str]:
    """Return the T1 that may be one with contrast: by a word in its name or a folder's, without a T1ce beside it."""
    told = {(c.key, c.path.parent) for c in images if c.match.role == "t1ce"}
    return {
        c.key: f"{c.path} may be T1 with contrast or without"
        for c in images
        if c.match.role == "t1" and (c.key, c.path.parent) not in told
        if any(map(may_be_contrast, [stem(c.path) or "", *_folders(c.path, places)]))
    }


def _folders(path: Path, places: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of the folders between a source and a file; of a file that is given, that of its folder."""
    below = [path.relative_to(place).parts[:-1] for place in places if place != path and path.is_relative_to(place)]
    return max([(path.parent.name,) if path in places else (), *below], key=len)


def _no_names(images: Sequence[Candidate], task: Task) -> dict[Key, str]:
    """Return the cases whose name is none, as `AX`, and the one that their files are likely to belong to.

    Where `pre` and `post` hold T1 with and without contrast each, they are times.
    """
    roles = _roles(images)
    named = [c for c in images if is_technique(c.match.case, task)]
    odd = {c.key: c for c in named if not {"t1", "t1ce"} <= roles[c.key]}
    beside = _by_folder(images)
    problems = {}
    for key, candidate in odd.items():
        folder, case = candidate.path.parent, candidate.match.case
        text = f"{candidate.path}: {case!r} does not say which case this is of"
        others = beside[folder].keys() - odd.keys()
        near = others if len(others) == 1 else set()
        while is_technique(folder.name, task):
            folder = folder.parent
        problems |= dict.fromkeys([*near, *(k for k in roles if k[2] == folder.name and _is_at(k, folder))], text)
        problems[key] = text
    return problems


def _is_at(key: Key, folder: Path) -> bool:
    return Path(key[1]) in (folder, folder.parent)


def _torn(images: Sequence[Candidate]) -> dict[Key, str]:
    """Return the cases of one folder of which one name goes on where the other ends, unless they have the same."""
    problems = {}
    for folder, cases in _by_folder(images).items():
        names = {key[2]: key for key in cases}
        for key in cases:
            for shorter in _beginnings(key[2]):
                if (other := names.get(shorter)) and cases[key] != cases[other]:
                    text = f"{folder}: {shorter} and {key[2]} may be one case or two"
                    problems |= {key: text, other: text}
    return problems


def _beginnings(name: str) -> Iterator[str]:
    return (name[: found.start()] for found in _SEPARATOR.finditer(name))


def _times(found: Sequence[Candidate]) -> dict[Key, str]:
    problems = {}
    keys = {candidate.key for candidate in found}
    for key in keys:
        layout, root, case = key
        if _TIME.search(case) and (plain := (layout, root, _TIME.sub("", case))) in keys:
            text = f"{root}: 'pre' and 'post' in the names may mean contrast or surgery"
            problems |= {key: text, plain: text}
    return problems


def _single_files(images: Sequence[Candidate], labels: Sequence[Candidate]) -> dict[Key, str]:
    """Return the cases of folders in which every file has another name before its word: one case, or many.

    A segmentation that speaks of something else than a tumour of a case is no such file.
    """
    cases = _by_folder(images)
    own = [c for c in labels if c.path.parent in cases and not _is_of(c, {k[2] for k in cases[c.path.parent]})]
    counts = Counter(candidate.key for candidate in [*images, *labels])
    folders: dict[Path, list[Candidate]] = defaultdict(list)
    for candidate in [*images, *own]:
        folders[candidate.path.parent].append(candidate)
    problems: dict[Key, str] = {}
    for folder, files in folders.items():
        roles = {candidate.match.role for candidate in files}
        if len(files) > 1 and len(roles) > 1 and all(counts[candidate.key] == 1 for candidate in files):
            names = first_few([candidate.path.name for candidate in files])
            problems |= {c.key: f"{folder} may hold one case or one per file: {names}" for c in files}
    return problems


def _is_of(label: Candidate, cases: set[str]) -> bool:
    """Return whether a segmentation, or the folder that it is in, is named after a case and something else."""
    name = label.match.case
    return label.path.parent.name in cases - {name} or any(shorter in cases for shorter in _beginnings(name))


def _roles(images: Sequence[Candidate]) -> dict[Key, set[str]]:
    roles: dict[Key, set[str]] = defaultdict(set)
    for candidate in images:
        roles[candidate.key].add(candidate.match.role)
    return roles


def _by_folder(images: Sequence[Candidate]) -> dict[Path, dict[Key, set[str]]]:
    """Return which sequences the cases have in each folder."""
    folders: dict[Path, list[Candidate]] = defaultdict(list)
    for candidate in images:
        folders[candidate.path.parent].append(candidate)
    return {folder: _roles(files) for folder, files in folders.items()}

"""Ambiguities in names without a layout, for which cases are rejected: contrast, surgery, one case or several."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from preprocess.errors import first_few
from preprocess.source.layouts.layout import SEGMENTATION, Candidate, Key
from preprocess.source.layouts.words import is_technique, may_be_contrast
from preprocess.source.nifti import stem
from preprocess.task import ALIASES, Task

_TIME = re.compile(r"[-_. ](?:pre|post)$", re.IGNORECASE)
_SEPARATOR = re.compile("[-_. ]")


def doubts(found: Sequence[Candidate], places: Collection[Path], task: Task) -> dict[Key, str]:
    """Return what is ambiguous about names, by case.

    Parameters
    ----------
    places
        The sources, as absolute paths; folders above them are not considered.
    """
    images = [candidate for candidate in found if candidate.match.role != SEGMENTATION]
    contrast = _contrast(images, places)
    problems = {
        **_begin_alike(images, contrast),
        **contrast,
        **_no_names(images, task),
        **_parted(images, task),
        **_times(found),
        **_single_files(images, [c for c in found if c.match.role == SEGMENTATION]),
    }
    return {
        key: f"{text}; rename the files, or describe them in a layout (docs/how-to/data.md)"
        for key, text in problems.items()
    }


def _contrast(images: Sequence[Candidate], places: Collection[Path]) -> dict[Key, str]:
    """Return the cases with a T1 that may be contrast-enhanced, judged by a word in its name or that of a folder."""
    contrasted = {candidate.key for candidate in images if candidate.match.role == "t1ce"}
    return {
        c.key: f"{c.path} may be T1 with or without contrast"
        for c in images
        if c.match.role == "t1" and _may_be_contrast(c, places, has_t1ce=c.key in contrasted)
    }


def _may_be_contrast(candidate: Candidate, places: Collection[Path], *, has_t1ce: bool) -> bool:
    """Return whether names leave open if a T1 has contrast; words that a T1ce of the case shares do not count."""
    path, case = candidate.path, candidate.match.case
    if may_be_contrast(stem(path) or "") and not (has_t1ce and may_be_contrast(case)):
        return True
    if ALIASES.get(path.parent.name.lower()) == "t1ce":
        return True
    return not has_t1ce and any(may_be_contrast(name) for name in _folders(path, places))


def _folders(path: Path, places: Collection[Path]) -> list[str]:
    """Return the names of the folders between a source and a file; for a file given directly, that of its folder."""
    parents = list(path.parents)
    above = max((number for number, parent in enumerate(parents) if parent in places), default=0)
    return [parent.name for parent in parents[: max(above, int(path in places))]]


def _no_names(images: Sequence[Candidate], task: Task) -> dict[Key, str]:
    """Return the cases whose name is not a real one, such as `AX`, and the case that their files probably belong to.

    If `pre` and `post` each contain T1 with and without contrast, they are points in time.
    """
    roles = _roles(images)
    named = [c for c in images if is_technique(c.match.case, task)]
    odd = {c.key: c for c in named if not {"t1", "t1ce"} <= roles[c.key]}
    beside = _by_folder(images)
    by_case = _by_case(roles)
    problems: dict[Key, str] = {}
    for key, candidate in odd.items():
        folder, case = candidate.path.parent, candidate.match.case
        text = f"{candidate.path}: {case!r} does not show which case this belongs to"
        others = beside[folder].keys() - odd.keys()
        near = others if len(others) == 1 else set()
        while is_technique(folder.name, task):
            folder = folder.parent
        problems |= dict.fromkeys([*near, *(k for k in by_case[folder.name] if _is_at(k, folder))], text)
        problems[key] = text
    return problems


def _is_at(key: Key, folder: Path) -> bool:
    return Path(key[1]) in (folder, folder.parent)


def _parted(images: Sequence[Candidate], task: Task) -> dict[Key, str]:
    """Return the cases of one name in sibling folders that are named after a technique: `T1_post/P1_T1`."""
    roles = _roles(images)
    by_case = _by_case(roles)
    places: dict[tuple[str, Path], set[Key]] = defaultdict(set)
    for key in roles:
        root = Path(key[1])
        if is_technique(root.name, task) and not {"t1", "t1ce"} <= roles[key]:
            places[key[2], root.parent].add(key)
    problems: dict[Key, str] = {}
    for (case, folder), keys in places.items():
        all_keys = keys | {key for key in by_case[case] if Path(key[1]) == folder}
        if len(all_keys) > 1:
            names = first_few(sorted(Path(key[1]).name for key in keys))
            problems |= dict.fromkeys(all_keys, f"{folder}: {case} may be one case or one in each folder: {names}")
    return problems


def _begin_alike(images: Sequence[Candidate], doubtful: Collection[Key]) -> dict[Key, str]:
    """Return the cases of one folder of which one name begins with the other.

    Cases that have the same sequences are left out, unless one of them is doubtful.
    """
    problems: dict[Key, str] = {}
    for folder, cases in _by_folder(images).items():
        names = {key[2]: key for key in cases}
        for key in cases:
            for shorter in _beginnings(key[2]):
                other = names.get(shorter)
                if other and (cases[key] != cases[other] or key in doubtful):
                    text = f"{folder}: {shorter} and {key[2]} may be one case or two"
                    problems |= {key: text, other: text}
    return problems


def _beginnings(name: str) -> Iterator[str]:
    return (name[: found.start()] for found in _SEPARATOR.finditer(name))


def _times(found: Sequence[Candidate]) -> dict[Key, str]:
    problems: dict[Key, str] = {}
    keys = {candidate.key for candidate in found}
    for key in keys:
        layout, root, case = key
        if _TIME.search(case) and (plain := (layout, root, _TIME.sub("", case))) in keys:
            text = f"{root}: 'pre' and 'post' in the names may mean contrast or surgery"
            problems |= {key: text, plain: text}
    return problems


def _single_files(images: Sequence[Candidate], labels: Sequence[Candidate]) -> dict[Key, str]:
    """Return the cases of folders in which every file has a different name before its word: one case, or many.

    A segmentation whose name refers to something other than a tumour of a case does not count.
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
            problems |= {c.key: f"{folder} may contain one case or one per file: {names}" for c in files}
    return problems


def _is_of(label: Candidate, cases: set[str]) -> bool:
    """Return whether a segmentation, or its folder, is named after a case and something else."""
    name = label.match.case
    return label.path.parent.name in cases - {name} or any(shorter in cases for shorter in _beginnings(name))


def _roles(images: Sequence[Candidate]) -> dict[Key, set[str]]:
    roles: dict[Key, set[str]] = defaultdict(set)
    for candidate in images:
        roles[candidate.key].add(candidate.match.role)
    return roles


def _by_case(keys: Iterable[Key]) -> dict[str, set[Key]]:
    cases: dict[str, set[Key]] = defaultdict(set)
    for key in keys:
        cases[key[2]].add(key)
    return cases


def _by_folder(images: Sequence[Candidate]) -> dict[Path, dict[Key, set[str]]]:
    """Return which sequences the cases have in each folder."""
    folders: dict[Path, list[Candidate]] = defaultdict(list)
    for candidate in images:
        folders[candidate.path.parent].append(candidate)
    return {folder: _roles(files) for folder, files in folders.items()}

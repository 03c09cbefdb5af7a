"""Cases, the role of every image file, and the files left over: determined by names alone; no image is opened.

A file's role comes from a layout (`layout`), or else from the rule for data sets without a layout (`own_names`). The
path determines the case: files in two folders become one case only if a layout or the name of the case joins them.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from preprocess.errors import InputError, first_few
from preprocess.source.layouts.cases import (
    IGNORED,
    NO_SEQUENCE,
    ORPHAN,
    UNKNOWN,
    UNREAD,
    UNUSED,
    CaseFiles,
    FileRole,
    make_cases,
)
from preprocess.source.layouts.layout import (
    CHANNEL,
    SEGMENTATION,
    Candidate,
    Key,
    Layout,
    read_layout,
    shipped_layouts,
)
from preprocess.source.layouts.numbers import read_dataset
from preprocess.source.layouts.own_names import GENERIC, own_candidates
from preprocess.source.layouts.words import LABEL_WORDS, is_foreign, is_of_labels
from preprocess.source.nifti import is_other_format, stem
from preprocess.task import ALIASES, Task

__all__ = [
    "FOLDER_LAYOUT",
    "IGNORED",
    "NO_SEQUENCE",
    "ORPHAN",
    "UNKNOWN",
    "UNREAD",
    "UNUSED",
    "CaseFiles",
    "FileRole",
    "Survey",
    "discover",
    "survey",
    "survey_folder",
]

FOLDER_LAYOUT = "ccsd-layout.yaml"
"""Name of a layout file in the folder of a data set; it describes the files there."""
_ABOVE = 3
"""How many folders above a source its layout may be: the source may be a single case, or a file of one."""
_LABEL_FOLDER = re.compile("label|seg|mask|annot|truth", re.IGNORECASE)


@dataclass(frozen=True)
class Survey:
    """The cases, sorted by name, and every image file, sorted by path."""

    cases: list[CaseFiles]
    files: list[FileRole]


def discover(src: Path, task: Task, layout: str | None = None) -> list[CaseFiles]:
    """Return the cases below a folder, sorted by name; see `survey`.

    Raises
    ------
    InputError
        If the folder does not exist, or as in `survey`.
    """
    return survey_folder(src, task, layout).cases


def survey_folder(src: Path, task: Task, layout: str | None = None) -> Survey:
    """Return the cases and files of a folder; see `survey`.

    Raises
    ------
    InputError
        If the folder does not exist, or as in `survey`.
    """
    if not src.is_dir():
        raise InputError(
            f"{src}: no such folder; give the folder with the cases, in a workflow as `source` in its configuration "
            "(see docs/how-to/data.md)"
        )
    return survey([src], task, layout)


def survey(sources: Sequence[Path], task: Task, layout: str | None = None) -> Survey:
    """Return the cases and the role of every image file among the given files and below the given folders.

    Hidden files and cases without images are left out.

    Parameters
    ----------
    layout
        Name or path of the one layout to use. By default each file belongs to the layout that fits it, among the
        shipped layouts and those in the sources (`FOLDER_LAYOUT`); the rule for names without a layout applies to the
        rest.
    task
        The segmentation task. Images of other sequences are ignored.

    Raises
    ------
    InputError
        If a folder cannot be read or a link is broken, two layouts fit a file but disagree about it, or a case has an
        invalid name.
    """
    paths = list(dict.fromkeys(path for source in sources for path in _image_files(source)))
    unread = {path: FileRole(path, role=UNREAD) for path in paths if is_other_format(path)}
    paths = [path for path in paths if path not in unread]
    layouts = _layouts(sources, task) if layout is None else [read_layout(layout, task)]
    found, orphans = _declared(paths, layouts, task)
    used = {candidate.path: candidate for candidate in found}
    ignored = {path: role for path in paths if path not in used and (role := _ignored(path, layouts))}
    problems: dict[Key, str] = {}
    if layout is None:
        folders = {path.parent for path in used}
        places = {_absolute(source) for source in sources}
        own, problems = own_candidates([p for p in paths if p not in ignored and p.parent not in folders], places, task)
        own = _joined(own, task)
        imaged = {candidate.key for candidate in own if candidate.match.role != SEGMENTATION}
        used |= {candidate.path: candidate for candidate in own if candidate.key in imaged}
        orphans = {candidate.path: candidate for candidate in own} | orphans
    cases, roles = make_cases(used.values(), problems, task)
    left = {
        path: FileRole(path, c.match.case.replace("/", "_"), ORPHAN, c.layout.name, c.match.pattern, c.layout.numbering)
        for path, c in orphans.items()
    }
    roles = left | roles | ignored | unread
    return Survey(cases, [roles.get(path) or FileRole(path) for path in sorted([*paths, *unread])])


def _layouts(sources: Sequence[Path], task: Task) -> list[Layout]:
    own = dict.fromkeys(path for source in sources if (path := _layout_near(source)))
    return [*(read_layout(str(path), task) for path in own), *shipped_layouts()]


def _layout_near(source: Path) -> Path | None:
    """Return the layout in a given folder, or else the nearest one in the folders above it, or above a given file."""
    place = _absolute(source)
    folders = [place, *place.parents[:_ABOVE]]
    return next((path for folder in folders if (path := folder / FOLDER_LAYOUT).is_file()), None)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - names as they are, whatever links lead to


def _image_files(source: Path) -> Iterator[Path]:
    """Yield a file, or every image file below a folder, as absolute paths in a fixed order."""
    place = _absolute(source)
    if not place.is_dir():
        yield place
        return
    errors: list[OSError] = []
    seen = set()
    for folder, below, names in os.walk(place, onerror=errors.append, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116 - what it is, whatever links led to it
        if (status.st_dev, status.st_ino) in seen:  # links may form cycles
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        errors += _dangling(folder)
        below[:] = sorted(name for name in below if not name.startswith(".") and not name.endswith(".zarr"))
        for name in sorted(names):
            is_image = stem(Path(name)) or is_other_format(Path(name))
            if is_image and not name.startswith("."):  # archives made on macOS are full of ._NAME files
                yield Path(folder) / name
    if errors:
        listed = first_few([f"{error.filename} ({error.strerror})" for error in errors])
        raise InputError(f"cannot be read: {listed}; get access to these folders, fix broken links, or move them away")


def _dangling(folder: str) -> list[OSError]:
    """Return errors for the broken links in a folder, which may hide a case."""
    with os.scandir(folder) as entries:
        links = [entry.path for entry in entries if entry.is_symlink() and not entry.name.startswith(".")]
    errors = []
    for link in links:
        try:
            os.stat(link)  # noqa: PTH116 - follows any chain of links
        except OSError as error:
            errors.append(OSError(error.errno, f"broken link: {error.strerror}", link))
    return errors


def _declared(
    paths: Sequence[Path], layouts: Sequence[Layout], task: Task
) -> tuple[list[Candidate], dict[Path, Candidate]]:
    """Return what layouts say about files, one answer per file, and segmentations whose images are missing.

    If several layouts fit a file, the one that says more about its path wins.
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        folders[path.parent].append(path)
    answers = _joined(
        [answer for folder, files in folders.items() for answer in _answers(folder, files, layouts, task)], task
    )
    imaged = {candidate.key for candidate in answers if candidate.match.role != SEGMENTATION}
    by_path: dict[Path, list[Candidate]] = defaultdict(list)
    orphans = {}
    for candidate in answers:
        if candidate.key in imaged:
            by_path[candidate.path].append(candidate)
        else:
            orphans[candidate.path] = candidate
    return [_best(found) for found in by_path.values()], orphans


def _answers(folder: Path, files: Sequence[Path], layouts: Sequence[Layout], task: Task) -> Iterator[Candidate]:
    """Yield what each layout says about the files of a folder.

    A folder that is named like a file, or contains a single one, may stand for its contents: some archives unpack so.
    """
    names = {path: _without_ending(path) for path in files}
    own = _without_ending(folder)
    stands = len(files) == 1 or own != str(folder)
    everything = "\n".join(names.values())
    for layout in layouts:
        if not layout.may_fit(everything):
            continue
        for path, name in names.items():
            match = layout.match(name) or (layout.match(own) if stands else None)
            if match is not None:
                yield _with_modality(Candidate(path, layout, match), task)


def _without_ending(path: Path) -> str:
    name = stem(path)
    return str(path) if name is None else str(path.with_name(name))


def _with_modality(candidate: Candidate, task: Task) -> Candidate:
    """Replace a modality given by number with the one that `dataset.json` assigns to the number."""
    match = candidate.match
    if match.role != CHANNEL:
        return candidate
    try:
        values = read_dataset(match.root)
        name = str((values.get("channel_names") or values["modality"])[str(match.channel)]).lower()
        return replace(candidate, match=replace(match, role=name if name in task.sequences else ALIASES[name]))
    except (KeyError, TypeError):
        return candidate


def _best(found: Sequence[Candidate]) -> Candidate:
    most = max(candidate.match.specificity for candidate in found)
    best = [candidate for candidate in found if candidate.match.specificity == most]
    if len({candidate.meaning for candidate in best}) > 1:
        names = " and ".join(candidate.layout.name for candidate in best)
        raise InputError(f"{best[0].path}: matches the layouts {names}, which disagree; choose one with --layout")
    return best[0]


def _joined(found: Sequence[Candidate], task: Task) -> list[Candidate]:
    """Assign segmentations to the case of the same name in a sibling folder: `images/P1_t1`, `labels/P1_seg`."""
    imaged = {candidate.key: candidate for candidate in found if candidate.match.role != SEGMENTATION}
    labelled = {candidate.key for candidate in found if candidate.match.role == SEGMENTATION}
    places: dict[tuple[str, str, Path], list[Key]] = defaultdict(list)
    for key in imaged.keys() - labelled:
        layout, root, case = key
        places[layout, case, Path(root).parent].append(key)
    result = []
    for candidate in found:
        layout, root, case = candidate.key
        named = candidate.layout is GENERIC and candidate.path.parent.name.lower() in LABEL_WORDS  # the sibling folder
        keys, match = places[layout, case, Path(root) if named else Path(root).parent], candidate.match
        if candidate.key not in imaged and len(keys) == 1 and (named or _holds_labels(candidate, task)):
            match = replace(match, root=imaged[keys[0]].match.root)
        result.append(replace(candidate, match=match))
    return result


def _holds_labels(candidate: Candidate, task: Task) -> bool:
    """Return whether the name of a segmentation's folder, read like a file name, marks a folder of segmentations."""
    name = Path(candidate.match.root).name
    fits = is_of_labels(name, task) if candidate.layout is GENERIC else not is_foreign(name, task)
    return fits and bool(_LABEL_FOLDER.search(name))


def _ignored(path: Path, layouts: Sequence[Layout]) -> FileRole | None:
    text = _without_ending(path)
    for layout in layouts:
        if pattern := layout.ignores(text):
            return FileRole(path, role=IGNORED, layout=layout.name, pattern=pattern)
    return None

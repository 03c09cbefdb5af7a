"""Cases from what layouts say about files: which file is used, what is ambiguous, and what the task does not use."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preprocess.errors import InputError
from preprocess.files import check_case_name
from preprocess.source.layouts.layout import CHANNEL, SEGMENTATION, VOLUMES, Candidate, Key, Match
from preprocess.source.layouts.numbers import DATASET, numbering_of
from preprocess.source.layouts.own_names import GENERIC
from preprocess.task import ALIASES, LabelConvention, Task

IGNORED, UNKNOWN, ORPHAN, UNREAD = "ignored", "unknown", "orphan", "unread"
"""Roles of files that no case uses: ignored by a layout, no pattern fits, a segmentation without images, or a format
other than NIfTI."""
UNUSED = (IGNORED, UNKNOWN, ORPHAN, UNREAD)
NO_SEQUENCE = "not a sequence of the task "
"""End of the pattern of an ignored file, before the task's name, if the task has no such sequence."""


@dataclass
class CaseFiles:
    """The files of one case.

    Attributes
    ----------
    case
        Name of the case.
    task
        The segmentation task.
    images
        Path by modality, only those that exist; several may be in one file.
    label
        Path of the segmentation, if there is one.
    layout
        Name of the layout, `generic` if there is none.
    numbering
        Name of the label convention, if the layout names it.
    declared
        The label convention, if it is not one of the task and a `dataset.json` beside the files declares it; its name
        is `numbering`.
    patient
        The patient, if the layout names it.
    channels
        The modalities along the last axis of a file that contains several.
    meant
        Shipped task that the layout belongs to, if it is another one.
    problem
        Why the names alone rule the case out, e.g. two files for one modality.
    """

    case: str
    task: Task
    images: dict[str, Path] = field(default_factory=dict)
    label: Path | None = None
    layout: str = GENERIC.name
    numbering: str | None = None
    declared: LabelConvention | None = None
    patient: str | None = None
    channels: tuple[str, ...] = ()
    meant: str = ""
    problem: str | None = None

    @property
    def paths(self) -> list[Path]:
        """Every file once, in a fixed order."""
        return list(dict.fromkeys([*self.images.values(), *([self.label] if self.label else [])]))

    @property
    def convention(self) -> LabelConvention:
        """What the label numbers mean; if unknown (`numbering` is None), the default of the task."""
        if self.declared is not None:
            return self.declared
        return self.task.convention(self.numbering) if self.numbering else self.task.default_convention


@dataclass(frozen=True)
class FileRole:
    """The role of one image file, and the pattern and layout that determined it.

    Attributes
    ----------
    role
        Modality, several joined by `+`, `segmentation`, `ignored`, `unknown`, `orphan` or `unread`.
    """

    path: Path
    case: str = ""
    role: str = UNKNOWN
    layout: str = ""
    pattern: str = ""
    numbering: str | None = None


def make_cases(
    found: Iterable[Candidate], problems: Mapping[Key, str], task: Task
) -> tuple[list[CaseFiles], dict[Path, FileRole]]:
    """Return the cases sorted by name, and the roles of their files."""
    groups: dict[Key, list[Candidate]] = defaultdict(list)
    for candidate in found:
        groups[candidate.key].append(candidate)
    names = _distinct_names({key: group[0].match for key, group in groups.items()})
    cases: list[CaseFiles] = []
    roles: dict[Path, FileRole] = {}
    for key, group in groups.items():
        check_case_name(names[key], group[0].path)
        case = _case(names[key], group, task)
        case.problem = problems.get(key, case.problem)
        cases.append(case)
        roles |= {candidate.path: _role(candidate, case) for candidate in group}
    return sorted(cases, key=lambda case: case.case), roles


def _role(candidate: Candidate, case: CaseFiles) -> FileRole:
    path, match = candidate.path, candidate.match
    role, pattern = match.role, match.pattern
    if role == VOLUMES:
        role = "+".join(case.images)
    if not _is_wanted(match.role, case.task):
        role, pattern = IGNORED, f"{pattern}: {match.role} is {NO_SEQUENCE}{case.task.name}"
    elif path not in case.paths and not case.problem:
        role, pattern = IGNORED, f"{pattern}: another file comes first"
    return FileRole(path, case.case, role, candidate.layout.name, pattern, candidate.layout.numbering)


def _is_wanted(role: str, task: Task) -> bool:
    return role in task.sequences or role in (SEGMENTATION, VOLUMES, CHANNEL)


def _case(name: str, group: Sequence[Candidate], task: Task) -> CaseFiles:
    layout = group[0].layout
    case = CaseFiles(name, task, layout=layout.name, numbering=layout.numbering, patient=group[0].match.patient)
    case.channels = layout.channels
    for role in dict.fromkeys(candidate.match.role for candidate in group if _is_wanted(candidate.match.role, task)):
        paths = _first_choice(candidate for candidate in group if candidate.match.role == role)
        if len(paths) > 1:
            case.problem = f"two files for {role}: {paths[0]} and {paths[1]}; remove or rename one"
        if role == CHANNEL:
            case.problem = (
                f"{paths[0]}: dataset.json does not name this sequence; name it there (channel_names) as one of "
                f"{', '.join(_known_names(task))}, or describe the files in a layout of your own "
                "(see docs/how-to/data.md)"
            )
        elif role == SEGMENTATION:
            case.label = paths[0]
        else:
            case.images |= dict.fromkeys(layout.channels if role == VOLUMES else (role,), paths[0])
    case.images = {m: case.images[m] for m in task.sequences if m in case.images}
    if CHANNEL in layout.files and case.label is not None:
        _declare(case, numbering_of(group[0].match.root, task))
    if misfit := layout.misfit(task):
        case.problem, case.meant = f"{name} {misfit}", next(iter(layout.tasks), "")
    elif not case.images and not case.problem:
        _reject_foreign(case, [candidate for candidate in group if candidate.match.role != SEGMENTATION])
    return case


def _reject_foreign(case: CaseFiles, others: Sequence[Candidate]) -> None:
    """Record as a problem that a case has only sequences that are not in its task."""
    task, channels = case.task, case.channels
    case.images = {m: c.path for c in others for m in (channels if c.match.role == VOLUMES else [c.match.role])}
    case.problem = (
        f"none of its sequences ({', '.join(case.images)}) is one of the task {task.name}, which has "
        f"{', '.join(task.sequences)}; choose another task with --task (task in the configuration)"
    )


def _known_names(task: Task) -> list[str]:
    """Return the known names of the sequences of a task, and of other sequences."""
    return list(dict.fromkeys([*task.sequences, *ALIASES]))


def _first_choice(found: Iterable[Candidate]) -> list[Path]:
    """Return the files of one role that match its first pattern."""
    mine = list(found)
    first = min(candidate.match.rank for candidate in mine)
    return [candidate.path for candidate in mine if candidate.match.rank == first]


def _declare(case: CaseFiles, convention: LabelConvention | None) -> None:
    if convention is not None:
        case.numbering, case.declared = DATASET, convention


def _distinct_names(cases: Mapping[Key, Match]) -> dict[Key, str]:
    """Return the name of each case; equal names are extended by as many parent folders as distinguish them."""
    parts = {key: [*Path(match.root).parts[1:], *match.case.split("/")] for key, match in cases.items()}
    lengths = {key: match.case.count("/") + 1 for key, match in cases.items()}
    while True:
        names = {key: "_".join(parts[key][-length:]) for key, length in lengths.items()}
        counts = Counter(names.values())
        equal = [key for key, name in names.items() if counts[name] > 1]
        if not equal:
            return names
        for key in equal:
            if lengths[key] >= len(parts[key]):
                raise InputError(f"{cases[key].root}: two cases are named {names[key]}; rename one of them")
            lengths[key] += 1

"""A layout: the roles of the files of a data set, described in one short YAML file.

Patterns are regular expressions over the path of a file without `.nii` or `.nii.gz`. They match at the end of the path,
from the beginning of a folder or file name, and ignore case. In them `{case}` stands for the name of the case, and
other braces for its named groups.
"""

import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from preprocess.errors import InputError
from preprocess.reading import read_model
from preprocess.task import SequenceName, Task, is_shipped, shipped_tasks

SEGMENTATION, VOLUMES, CHANNEL = "segmentation", "volumes", "channel"
"""Roles besides the modalities: a file with several modalities, or a modality given by number."""
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_SEPARATOR = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|/")

Patterns = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value), Field(min_length=1)
]


Key = tuple[str, str, str]
"""What the files of one case have in common: layout, location and name."""


@dataclass(frozen=True)
class Match:
    """What a layout says about one file.

    Attributes
    ----------
    role
        A modality, `SEGMENTATION`, `VOLUMES` or `CHANNEL`.
    rank
        Position of the pattern among those of the role; the file with the first one is used.
    pattern
        As written in the layout.
    root
        The path before the match, empty or ending in `/`; case names are unique below it.
    case, patient
        As in the path; a case may have several parts, separated by `/`.
    channel
        Number of the modality, for `CHANNEL`.
    specificity
        Length of the match, increased if a folder above identifies the data set.
    """

    role: str
    rank: int
    pattern: str
    root: str
    case: str
    patient: str | None = None
    channel: int | None = None
    specificity: int = 0


@dataclass(frozen=True)
class Candidate:
    """A file, and what a layout says it is."""

    path: Path
    layout: "Layout"
    match: Match

    @property
    def key(self) -> Key:
        """The case that the file belongs to."""
        return self.layout.name, self.match.root, self.match.case

    @property
    def meaning(self) -> tuple[str, str, str | None]:
        """What two layouts that fit the same file must agree on."""
        return self.match.role, self.match.case, self.layout.numbering


class Layout(BaseModel):
    """The file names of one data set.

    Attributes
    ----------
    name
        The file's own name without `.yaml`.
    tasks
        Shipped tasks that the data set belongs to; none if it can be used for any.
    numbering
        Label convention of the segmentations; without one the user must name it.
    case
        Pattern of a case name; its group `patient`, if it has one, is the patient.
    files
        Pattern or patterns by role; if there are several for one role, the first that exists is used.
    channels
        The modalities along the last axis of a `volumes` file. Those of `channel` files are named in `dataset.json`.
    ignored
        Patterns of files that have no role.
    patients
        The patient by case, if names do not show it.
    below
        Pattern of the name of a folder above the files that distinguishes this data set from others with the same file
        names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_min_length=1)

    name: str
    tasks: tuple[str, ...] = ()
    numbering: str | None = None
    case: str
    files: dict[SequenceName, Patterns]
    channels: tuple[SequenceName, ...] = ()
    ignored: tuple[str, ...] = ()
    patients: dict[str, str] = Field(default_factory=dict)
    below: str | None = None

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        if not set(self.files) - {SEGMENTATION}:
            raise ValueError("files: no image; give at least one sequence, by its name in the task")
        if VOLUMES in self.files and set(self.files) - {VOLUMES, SEGMENTATION}:
            raise ValueError(f"files: has both {VOLUMES} and single images; describe them in two layouts")
        if (VOLUMES in self.files) != bool(self.channels):
            raise ValueError(f"channels: the order of the modalities in files.{VOLUMES}; give both or neither")
        if not all("(?P<channel>" in pattern for pattern in self.files.get(CHANNEL, ())):
            raise ValueError(f"files.{CHANNEL}: mark the number of the modality, for example (?P<channel>[0-9]{{4}})")
        if wrong := [name for name in self.tasks if name not in shipped_tasks()]:
            raise ValueError(
                f"tasks: unknown {wrong[0]}; allowed: {', '.join(shipped_tasks())}; leave it out for a task of your own"
            )
        known = [name for task in self.tasks for name in shipped_tasks()[task].numbering]
        if self.tasks and self.numbering not in (None, *known):
            raise ValueError(f"numbering: unknown {self.numbering}; allowed: {', '.join(known)}, or none")
        # compiled here, so that errors are found at once
        _ = self._case, self._name, self._below, self._patterns, self._ignored
        return self

    def may_fit(self, paths: str) -> bool:
        """Return whether a text with many paths contains a case name; this quickly rules out most layouts."""
        return bool(self._case.search(paths))

    def match(self, path: str) -> Match | None:
        """Return what the file with this absolute path, without its suffix, is, judged by its name."""
        for role, rank, pattern, regex in self._patterns:
            if found := regex.fullmatch(path):
                named = found.groupdict()
                number = named.get("channel")
                channel = None if number is None else int(number)
                root, case, matched = found["root"], found["case"], len(path) - len(found["root"])
                root = without_own_folder(root, case)
                patient = self._known.get(_joined(case), named.get("patient"))
                return Match(role, rank, pattern, root, case, patient, channel, matched + self._shown(root))
        return None

    def _shown(self, root: str) -> int:
        """Return how strongly the folders above indicate this layout; the nearer to the files, the more."""
        if self._below is None:
            return 0
        return max((number for number, name in enumerate(root.split("/")) if self._below.fullmatch(name)), default=0)

    def ignores(self, path: str) -> str | None:
        """Return the pattern by which a file is ignored, if any."""
        return next((pattern for pattern, regex in self._ignored if regex.fullmatch(path)), None)

    def has_case(self, name: str) -> bool:
        """Return whether a name is that of a case of this layout; never true for patterns that fit any name."""
        return not self._case.fullmatch("~") and bool(self._name.fullmatch(name))

    def patient_of(self, name: str) -> str | None:
        """Return the patient of a case of this layout by the case's name; None if the name does not show it."""
        found = self._name.fullmatch(name) if self.has_case(name) else None
        return self._known.get(name, found.groupdict().get("patient") if found else None)

    def misfit(self, task: Task) -> str:
        """Return why cases of this layout cannot be used for a task, and what to do; empty if they can."""
        if is_shipped(task) and self.tasks and task.name not in self.tasks:
            return (
                f"has the layout {self.name}, which is for the task {' or '.join(self.tasks)}, not {task.name}; choose "
                f"--task {self.tasks[0]} (task in the configuration), or, if its labels mean the same, give a layout "
                f"of your own (--layout, see docs/how-to/data.md){self._namesakes()}"
            )
        if self.numbering is not None and self.numbering not in task.numbering:
            return (
                f"has the layout {self.name}, whose label numbers are those of {self.numbering}, but the task "
                f"{task.name} has {', '.join(task.numbering)}; choose another task with --task (task in the "
                f"configuration), or add this numbering to your task file{self._namesakes()}"
            )
        return ""

    def _namesakes(self) -> str:
        """Return advice about data sets that have the same file names as this one."""
        others = [layout.name for layout in shipped_layouts() if layout.case == self.case and layout.name != self.name]
        return f"; files of {' or '.join(others)} have the same names: choose --layout for them" if others else ""

    @cached_property
    def _case(self) -> re.Pattern[str]:
        return _compiled(self.case, f"case: {self.case!r}")

    @cached_property
    def _name(self) -> re.Pattern[str]:
        """Pattern of a case's name, in which folders are joined by `_`; the contents of brackets stay unchanged."""
        text = _SEPARATOR.sub(lambda found: "_" if found[0] == "/" else found[0], self.case)
        return _compiled(text, f"case: {self.case!r}")

    @cached_property
    def _known(self) -> dict[str, str]:
        return {_joined(case): patient for case, patient in self.patients.items()}

    @cached_property
    def _below(self) -> re.Pattern[str] | None:
        return None if self.below is None else _compiled(self.below, f"below: {self.below!r}")

    @cached_property
    def _patterns(self) -> list[tuple[str, int, str, re.Pattern[str]]]:
        return [
            (role, rank, pattern, self._pattern(pattern, f"files.{role}"))
            for role, patterns in self.files.items()
            for rank, pattern in enumerate(patterns)
        ]

    @cached_property
    def _ignored(self) -> list[tuple[str, re.Pattern[str]]]:
        return [(pattern, self._pattern(pattern, "ignored", has_case=False)) for pattern in self.ignored]

    def _pattern(self, pattern: str, key: str, *, has_case: bool = True) -> re.Pattern[str]:
        if has_case and "{case}" not in pattern:
            raise ValueError(f"{key}: {pattern!r} does not contain {{case}}")
        first, *others = pattern.partition("{case}")
        text = first + "".join(others).replace("{case}", f"(?P<case>{self.case})", 1)
        text = _PLACEHOLDER.sub(r"(?P=\1)", text)
        return _compiled(f"(?P<root>(?:.*?/)?)(?:{text})", f"{key}: {pattern!r} with the case {self.case!r}")


def _joined(case: str) -> str:
    """Return the name of a case that may have several parts."""
    return case.replace("/", "_")


def _compiled(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{where}: {error}") from None


def without_own_folder(root: str, case: str) -> str:
    """Return the location of a case without folders that have its name."""
    while root.endswith(f"/{case}/"):
        root = root[: -len(case) - 1]
    return root


def numberings_of(case: str) -> set[str | None]:
    """Return the label conventions of the layouts that have cases of such a name."""
    return {layout.numbering for layout in shipped_layouts() if layout.has_case(case)}


def patient_named(case: str) -> str | None:
    """Return the patient of a case according to the layouts that have cases of such a name; None if unknown."""
    found = (layout.patient_of(case) for layout in shipped_layouts())
    return next((patient for patient in found if patient is not None), None)


@cache
def shipped_layouts() -> tuple[Layout, ...]:
    """Return the layouts of the released data sets that this version knows, sorted by name."""
    return tuple(read_model(path, Layout, "layout") for path in sorted(Path(__file__).parent.glob("*.yaml")))


def read_layout(name: str, task: Task) -> Layout:
    """Return a layout by its name, or by the path of a YAML file.

    Raises
    ------
    InputError
        If there is no such layout, or the file has keys, roles or patterns that cannot be used; every problem is
        listed. Also if it is for any task and has a numbering that this task does not know.
    """
    known = {layout.name: layout for layout in shipped_layouts()}
    if name in known:
        return known[name]
    if not name.endswith((".yaml", ".yml")):
        raise InputError(f"layout {name}: unknown; give the path of a .yaml file, or one of {', '.join(known)}")
    layout = read_model(Path(name), Layout, "layout")
    if not layout.tasks and layout.numbering not in (None, *task.numbering):
        raise InputError(
            f"{name}: numbering: unknown {layout.numbering}; allowed in the task {task.name}: "
            f"{', '.join(task.numbering)}, or none; or choose another task with --task"
        )
    return layout

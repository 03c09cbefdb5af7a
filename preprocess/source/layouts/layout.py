"""A layout: which file of a data set is what, as data, in one short YAML file.

Patterns are regular expressions over the path of a file without `.nii` or `.nii.gz`. They match at its end, from the
beginning of a folder's or file's name, and upper and lower case are the same. In them `{case}` stands for the name of
the case, and other braces for named groups of it.
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
"""Roles of files besides those named after their modality: several modalities in one file, or a modality by number."""
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_SEPARATOR = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|/")

Patterns = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value), Field(min_length=1)
]


Key = tuple[str, str, str]
"""What the files of one case have in common: layout, place and name."""


@dataclass(frozen=True)
class Match:
    """What a layout says about one file.

    Attributes
    ----------
    role
        A modality, `SEGMENTATION`, `VOLUMES` or `CHANNEL`.
    rank
        Position of the pattern among those of the role; the first file is used.
    pattern
        As it stands in the layout.
    root
        The path before what the pattern matched, empty or with a `/` at its end: a case is one there.
    case, patient
        As the path has them; a case may have several parts, separated by `/`.
    channel
        Number of the modality, for `CHANNEL`.
    said
        Length of what the pattern matched, and more where a folder above shows the data set.
    """

    role: str
    rank: int
    pattern: str
    root: str
    case: str
    patient: str | None = None
    channel: int | None = None
    said: int = 0


@dataclass(frozen=True)
class Candidate:
    """A file, and what a layout says it is."""

    path: Path
    layout: "Layout"
    match: Match

    @property
    def key(self) -> Key:
        """The case that the file is of."""
        return self.layout.name, self.match.root, self.match.case

    @property
    def meaning(self) -> tuple[str, str, str | None]:
        """What two layouts that fit one file must agree in."""
        return self.match.role, self.match.case, self.layout.numbering


class Layout(BaseModel):
    """The file names of one data set.

    Attributes
    ----------
    name
        The file's own name without `.yaml`.
    tasks
        Shipped tasks that the data set is of; none where it is of any.
    numbering
        Label convention of the segmentations; without one the user names it.
    case
        Pattern of a case; its group `patient`, if it has one, is the patient.
    files
        Pattern or patterns by role; of several for one role the first that is there counts.
    channels
        The modalities along the last axis of a `volumes` file. Those of `channel` files are named in `dataset.json`.
    ignored
        Patterns of files that have no role.
    patients
        The patient by case, where names do not show it.
    below
        Pattern of the name of a folder above the files, by which they are of this data set and not of another one with
        the same names.
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
            raise ValueError("files: no image; give at least one sequence by its name in the task")
        if VOLUMES in self.files and set(self.files) - {VOLUMES, SEGMENTATION}:
            raise ValueError(f"files: {VOLUMES} and single images; describe them in two layouts")
        if (VOLUMES in self.files) != bool(self.channels):
            raise ValueError(f"channels: the order of the modalities in a file of files.{VOLUMES}; give both or none")
        if not all("(?P<channel>" in pattern for pattern in self.files.get(CHANNEL, ())):
            raise ValueError(f"files.{CHANNEL}: mark the number of the modality, for example (?P<channel>[0-9]{{4}})")
        if wrong := [name for name in self.tasks if name not in shipped_tasks()]:
            raise ValueError(
                f"tasks: unknown {wrong[0]}; allowed: {', '.join(shipped_tasks())}; leave it out for a task of your own"
            )
        known = [name for task in self.tasks for name in shipped_tasks()[task].numbering]
        if self.tasks and self.numbering not in (None, *known):
            raise ValueError(f"numbering: unknown {self.numbering}; allowed: {', '.join(known)}, or none")
        # compiled here, so that what is wrong is known at once
        _ = self._case, self._name, self._below, self._patterns, self._ignored
        return self

    def may_fit(self, paths: str) -> bool:
        """Return whether a text with many paths has the name of a case: most layouts are out at once."""
        return bool(self._case.search(paths))

    def match(self, path: str) -> Match | None:
        """Return what the file with this absolute path, without its ending, is by its name."""
        for role, rank, pattern, regex in self._patterns:
            if found := regex.fullmatch(path):
                named = found.groupdict()
                number = named.get("channel")
                channel = None if number is None else int(number)
                root, case, said = found["root"], found["case"], len(path) - len(found["root"])
                root = without_own_folder(root, case)
                patient = self._known.get(_joined(case), named.get("patient"))
                return Match(role, rank, pattern, root, case, patient, channel, said + self._shown(root))
        return None

    def _shown(self, root: str) -> int:
        """Return how much the folders above say for this layout: one near to the files says more than one far away."""
        if self._below is None:
            return 0
        return max((number for number, name in enumerate(root.split("/")) if self._below.fullmatch(name)), default=0)

    def ignores(self, path: str) -> str | None:
        """Return the pattern by which a file has no role."""
        return next((pattern for pattern, regex in self._ignored if regex.fullmatch(path)), None)

    def has_case(self, name: str) -> bool:
        """Return whether a name shows that it is of a case of this layout; patterns that fit any name never do."""
        return not self._case.fullmatch("~") and bool(self._name.fullmatch(name))

    def patient_of(self, name: str) -> str | None:
        """Return the patient of a case of this layout by the case's name, None if the name does not show it."""
        found = self._name.fullmatch(name) if self.has_case(name) else None
        return self._known.get(name, found.groupdict().get("patient") if found else None)

    def misfit(self, task: Task) -> str:
        """Return why cases of this layout cannot be used for a task, and what to do; nothing if they can."""
        if is_shipped(task) and self.tasks and task.name not in self.tasks:
            return (
                f"is laid out as {self.name}, of the task {' or '.join(self.tasks)}, and not of {task.name}; choose "
                f"--task {self.tasks[0]} (task in the configuration), or, if its labels mean the same, give a layout "
                f"of your own (--layout, see docs/how-to/data.md){self._namesakes()}"
            )
        if self.numbering is not None and self.numbering not in task.numbering:
            return (
                f"is laid out as {self.name}, whose label numbers are those of {self.numbering}, and the task "
                f"{task.name} has {', '.join(task.numbering)}; choose another task with --task (task in the "
                f"configuration), or add this numbering to the file of yours{self._namesakes()}"
            )
        return ""

    def _namesakes(self) -> str:
        """Return what to do about data sets that have the same names as this one."""
        others = [layout.name for layout in shipped_layouts() if layout.case == self.case and layout.name != self.name]
        return f"; files of {' or '.join(others)} have the same names: choose --layout for them" if others else ""

    @cached_property
    def _case(self) -> re.Pattern[str]:
        return _compiled(self.case, f"case: {self.case!r}")

    @cached_property
    def _name(self) -> re.Pattern[str]:
        """Pattern of a case's name, in which folders are joined by `_`; what stands in brackets is left as it is."""
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
            raise ValueError(f"{key}: {pattern!r} does not say where {{case}} stands")
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
    """Return the place of a case without folders that have its name."""
    while root.endswith(f"/{case}/"):
        root = root[: -len(case) - 1]
    return root


def numberings_of(case: str) -> set[str | None]:
    """Return what the layouts say about label numbers that have cases of such a name."""
    return {layout.numbering for layout in shipped_layouts() if layout.has_case(case)}


def patient_named(case: str) -> str | None:
    """Return the patient that a case is of by the layouts that have cases of such a name, None if none says it."""
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
        If there is none, or the file has keys, roles or patterns that cannot be used; every problem is listed. Also if
        it is for any task and has a numbering that this task does not know.
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

"""Finding cases in the released layouts, by file names alone: no file is opened.

One rule covers BraTS 2018 to 2024 and any other folder: a name ends in an alias of a modality or of the label
(`CASE_flair.nii.gz`, `CASE-t2f.nii.gz`), or is such an alias inside a folder named after the case. Task01 of the
Medical Segmentation Decathlon (four images in one 4-D file) and case 355 of 2020 (label with a name of its own) are
the exceptions.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from preprocess.errors import InputError, first_few
from preprocess.files import check_case_name
from preprocess.modalities import ALIASES, MODALITIES
from preprocess.source.nifti import stem

LABEL_ALIASES = ("seg", "segm", "segmentation", "label", "labels", "mask")
MSD_ORDER = ("flair", "t1", "t1ce", "t2")
"""The modalities along the last axis of a Task01 image."""

_ENDINGS = "|".join(sorted((re.escape(a) for a in (*ALIASES, *LABEL_ALIASES)), key=len, reverse=True))
_FILE = re.compile(rf"^(?:(?P<case>.+?)[-_. ])?(?P<ending>{_ENDINGS})$", re.IGNORECASE)
_MSD_FOLDER = re.compile(r"^(images|labels)T[rs]$")
_GLI = re.compile(r"^BraTS-GLI-\d{5}-(?P<scan>\d{3})$")
_FIRST_2024_SCAN = 100
_OLD_YEARS = re.compile(r"^(Brats18|BraTS19|BraTS20|BraTS2021)_", re.IGNORECASE)


@dataclass
class CaseFiles:
    """The files of one case.

    Attributes
    ----------
    case
        Name of the case.
    images
        Path by modality, only those that are there; the four of a Task01 case are one file.
    label
        Path of the segmentation, if there is one.
    layout
        `brats2020` (2018 to 2021), `brats2023`, `brats2024`, `msd` or `generic`.
    problem
        Why the names alone rule the case out, e.g. two files for one modality.
    """

    case: str
    images: dict[str, Path] = field(default_factory=dict)
    label: Path | None = None
    layout: str = "generic"
    problem: str | None = None

    @property
    def paths(self) -> list[Path]:
        """Every file once, in a fixed order."""
        found = [self.images[m] for m in MODALITIES if m in self.images]
        return list(dict.fromkeys([*found, *([self.label] if self.label else [])]))


def discover(src: Path) -> list[CaseFiles]:
    """Return the cases below a folder, sorted by name, in any mix of layouts.

    Hidden files and files whose names say nothing are passed over (`passed_over` names them). A case without images is
    left out.

    Raises
    ------
    InputError
        If the folder is not there.
    """
    if not src.is_dir():
        raise InputError(f"{src}: no such folder; give the folder that holds the cases (see docs/data.md)")
    return group(_nifti_files(src))


def group(paths: Iterable[Path]) -> list[CaseFiles]:
    """Return the cases that NIfTI files belong to by their names, sorted by name; a case without images is left out."""
    cases: dict[str, CaseFiles] = {}
    for path in paths:
        name = stem(path) or path.name
        match = _FILE.match(name)
        if match:
            _add_named(cases, path, match)
        elif _MSD_FOLDER.match(path.parent.name):
            _add_msd(cases, path, name)
    _adopt_labels(cases)
    for name, case in cases.items():
        if case.images:
            check_case_name(name, case.paths[0])
    return [_finished(cases[name]) for name in sorted(cases) if cases[name].images]


def passed_over(sources: Iterable[Path]) -> str | None:
    """Say which NIfTI files below folders have names that tell neither a sequence nor a segmentation, if any has.

    A sequence with a name of its own (`T1post`) would otherwise be missed without a word.
    """
    names = [str(path) for src in sources if src.is_dir() for path in _nifti_files(src) if not _is_named(path)]
    if not names:
        return None
    return (
        f"passed over, because the name does not end in one that docs/data.md lists: {first_few(names, 3)}"
        "; a file that belongs to a case can be linked under such a name (ln -s FILE CASE_t1ce.nii.gz)"
    )


def _is_named(path: Path) -> bool:
    return bool(_FILE.match(stem(path) or path.name) or _MSD_FOLDER.match(path.parent.name))


def _nifti_files(src: Path) -> Iterator[Path]:
    """Yield every NIfTI file below a folder, in a fixed order."""
    seen = set()
    for folder, below, names in os.walk(src, followlinks=True):
        place = os.stat(folder)  # noqa: PTH116 - what it is, whatever links led to it
        if (place.st_dev, place.st_ino) in seen:  # links may form circles
            below.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        below[:] = sorted(name for name in below if not name.startswith(".") and not name.endswith(".zarr"))
        for name in sorted(names):
            if stem(Path(name)) and not name.startswith("."):  # archives made on a Mac are full of ._NAME files
                yield Path(folder) / name


def _add_named(cases: dict[str, CaseFiles], path: Path, match: re.Match[str]) -> None:
    name = match["case"] or path.parent.resolve().name
    case = cases.setdefault(name, CaseFiles(name))
    ending = match["ending"].lower()
    if ending in LABEL_ALIASES:
        _set_label(case, path)
    else:
        _set_image(case, ALIASES[ending], path)


def _add_msd(cases: dict[str, CaseFiles], path: Path, name: str) -> None:
    case = cases.setdefault(name, CaseFiles(name, layout="msd"))
    if path.parent.name.startswith("labels"):
        _set_label(case, path)
    else:
        for modality in MSD_ORDER:
            _set_image(case, modality, path)


def _adopt_labels(cases: dict[str, CaseFiles]) -> None:
    """Give a label with an odd name (`W39_1998.09.19_Segm.nii`) to the one case of its folder that has none."""
    for orphan in [case for case in cases.values() if case.label and not case.images]:
        folder = orphan.label.parent if orphan.label else None
        near = [case for case in cases.values() if any(image.parent == folder for image in case.images.values())]
        if len(near) == 1 and near[0].label is None:
            near[0].label = orphan.label


def _set_image(case: CaseFiles, modality: str, path: Path) -> None:
    known = case.images.setdefault(modality, path)
    if known != path:
        case.problem = f"two files for {modality}: {known} and {path}; remove or rename one"


def _set_label(case: CaseFiles, path: Path) -> None:
    if case.label is not None:
        case.problem = f"two files for the segmentation: {case.label} and {path}; remove or rename one"
    case.label = path


def _finished(case: CaseFiles) -> CaseFiles:
    scan = _GLI.match(case.case)
    if scan:
        case.layout = "brats2024" if int(scan["scan"]) >= _FIRST_2024_SCAN else "brats2023"
    elif _OLD_YEARS.match(case.case):
        case.layout = "brats2020"
    case.images = {m: case.images[m] for m in MODALITIES if m in case.images}
    return case

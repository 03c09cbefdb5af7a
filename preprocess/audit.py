"""Auditing a data set before conversion: a table, and a page with a thumbnail of each case."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from preprocess.checks import Finding, examine
from preprocess.errors import InputError
from preprocess.files import write_text
from preprocess.parallel import run_parallel, track
from preprocess.pictures import colour, draw, jpeg, side_by_side, slice_of_interest
from preprocess.source.accounts import summary
from preprocess.source.geometry import to_canonical
from preprocess.source.layouts import CaseFiles, FileRole
from preprocess.source.load import Loaded, load, voxel_digest
from preprocess.source.nifti import Volume
from preprocess.task import LabelConvention, Task

TABLE, PAGE = "audit.tsv", "audit.html"
_COLUMNS = ("case", "verdict", "layout", "modalities", "label", "check", "finding")
_SIDE = 110


@dataclass(frozen=True)
class CaseAudit:
    """What was found in one case.

    Attributes
    ----------
    digests
        SHA-256 by file name, to find the same file in two cases.
    thumbnail
        JPEG of one slice through all modalities, empty if the case cannot be read.
    """

    case: str
    layout: str
    modalities: tuple[str, ...]
    has_label: bool
    findings: tuple[Finding, ...]
    digests: dict[str, str]
    thumbnail: bytes = b""

    @property
    def verdict(self) -> str:
        """`rejected`, `unusual` or `fine`."""
        if any(finding.rejects for finding in self.findings):
            return "rejected"
        return "unusual" if self.findings else "fine"


def audit(cases: Sequence[CaseFiles], *, workers: int = 1) -> list[CaseAudit]:
    """Examine cases in parallel and return what was found, sorted by name."""
    lost = partial(_unreadable, text="the process died while reading it; is there enough memory?")
    found = list(track(run_parallel(_audit_case, cases, workers, lost), len(cases), "audit"))
    return _with_shared_files(sorted(found, key=lambda item: item.case))


def write_audit(audits: Sequence[CaseAudit], files: Sequence[FileRole], out: Path, task: Task) -> None:
    """Write `audit.tsv` (one line per finding, or one for a case without findings) and `audit.html` below `out`."""
    lines = ["\t".join(_COLUMNS)]
    for item in audits:
        label = "yes" if item.has_label else "no"
        start = (item.case, item.verdict, item.layout, "+".join(item.modalities), label)
        pairs = [(f.check, " ".join(f.message.split())) for f in item.findings] or [("", "")]
        lines += ["\t".join([*start, *pair]) for pair in pairs]
    write_text(out / TABLE, "\n".join(lines) + "\n")
    write_text(out / PAGE, _page(audits, summary(files, task), task))


def _audit_case(files: CaseFiles) -> CaseAudit:
    try:
        case = load(files)
        findings = tuple(examine(case))
    except InputError as error:
        return _unreadable(files, str(error))
    digests = {files.images[m].name: _digest(volume) for m, volume in case.images.items()}
    whole = not any(finding.check in ("shape", "direction") for finding in findings)
    thumbnail = _thumbnail(case) if whole else b""
    return CaseAudit(
        files.case, files.layout, tuple(files.images), files.label is not None, findings, digests, thumbnail
    )


def _digest(volume: Volume) -> str:
    try:
        return voxel_digest(volume)
    except InputError:  # its orientation is already a finding
        return volume.sha256


def _unreadable(files: CaseFiles, text: str) -> CaseAudit:
    finding = Finding("unreadable", text, rejects=True)
    return CaseAudit(files.case, files.layout, tuple(files.images), files.label is not None, (finding,), {})


def _with_shared_files(audits: Sequence[CaseAudit]) -> list[CaseAudit]:
    """Add a finding to cases that contain an image of another case."""
    owners: dict[str, list[str]] = {}
    for item in audits:
        for digest in set(item.digests.values()):
            owners.setdefault(digest, []).append(item.case)
    result = []
    for item in audits:
        extra = [
            Finding("shared-file", f"{name} shows the same image as a file of {', '.join(others)}", rejects=False)
            for name, digest in item.digests.items()
            if (others := [case for case in owners[digest] if case != item.case])
        ]
        result.append(replace(item, findings=(*item.findings, *extra)) if extra else item)
    return result


def _thumbnail(case: Loaded) -> bytes:
    """Return a JPEG: the plane with most tumour in every modality side by side, and in the first with its classes."""
    task, affine = case.files.task, case.reference.affine
    label = None if case.label is None else _known_classes(to_canonical(case.label.array, affine), case.convention)
    images = {m: to_canonical(volume.array, affine) for m, volume in case.images.items()}
    plane = len(next(iter(images.values()))) // 2 if label is None else slice_of_interest(label, task)
    tiles = [_square(images[m][plane]) if m in images else np.zeros((_SIDE, _SIDE)) for m in task.modalities]
    pictures = [draw(tile, height=_SIDE) for tile in tiles]
    if label is not None:
        pictures.append(draw(tiles[0], _square(label[plane]), height=_SIDE))
    return jpeg(side_by_side(pictures, gap=0))


def _known_classes(label: NDArray[np.generic], convention: LabelConvention) -> NDArray[np.uint8]:
    """Return classes, with 0 for values that the convention does not know: an audit must show wrong labels, too."""
    classes = np.zeros(label.shape, np.uint8)
    for value, number in convention.values.items():
        classes[label == value] = number
    return classes


def _square(plane: NDArray[Any]) -> NDArray[Any]:
    """Resample the plane to a square of fixed size, with nearest-neighbour interpolation."""
    rows, columns = (np.arange(_SIDE) * n // _SIDE for n in plane.shape)
    return plane[np.ix_(rows, columns)]


def _page(audits: Sequence[CaseAudit], lines: Sequence[str], task: Task) -> str:
    order = {"rejected": 0, "unusual": 1, "fine": 2}
    counts = {verdict: sum(item.verdict == verdict for item in audits) for verdict in order}
    rows = [
        {"item": item, "image": base64.b64encode(item.thumbnail).decode()}
        for item in sorted(audits, key=lambda item: (order[item.verdict], item.case))
    ]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE).render(
        rows=rows,
        counts=counts,
        total=len(audits),
        lines=lines,
        sequences=list(task.sequences.values()),
        classes=[f"{colour(number)[0]} {name}" for name, number in task.classes.items()],
    )


def verdicts(audits: Iterable[CaseAudit]) -> dict[str, int]:
    """Return the number of cases by verdict."""
    counts = {"rejected": 0, "unusual": 0, "fine": 0}
    for item in audits:
        counts[item.verdict] += 1
    return counts


_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Audit of {{ total }} case{{ '' if total == 1 else 's' }}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222 }
table { border-collapse: collapse } td, th { border-bottom: 1px solid #ddd; padding: .4em .7em; text-align: left;
vertical-align: top } .rejected { color: #b00020 } .unusual { color: #9a6700 } .fine { color: #1a7f37 }
code { color: #666 }
</style></head><body>
<h1>Audit of {{ total }} case{{ '' if total == 1 else 's' }}</h1>
<p>{{ counts.rejected }} rejected, {{ counts.unusual }} unusual, {{ counts.fine }} fine. From left to right:
{{ sequences | join(", ") }}, and {{ sequences[0] }} with the segmentation ({{ classes | join(", ") }}); the patient's
right is on the left.</p>
<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>
<table><tr><th>Case</th><th>Slice</th><th>Findings</th></tr>
{% for row in rows %}
<tr><td>{{ row.item.case }}<br><b class="{{ row.item.verdict }}">{{ row.item.verdict }}</b><br>
{{ row.item.modalities | join(", ") }}</td>
<td>{% if row.image %}
<img alt="slice of {{ row.item.case }}" src="data:image/jpeg;base64,{{ row.image }}">{% endif %}</td>
<td>{% for finding in row.item.findings %}<div>{{ finding.message }} <code>{{ finding.check }}</code></div>{% endfor %}
</td></tr>
{% endfor %}
</table></body></html>
"""

"""The card of a packed model: what it is, what it was trained on, its scores, and what it was not tested on."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ccsd.config.method import UNETS
from ccsd.inference.case import in_mm, training_spacing
from ccsd.inference.ensemble import Member, hash_of
from ccsd.metrics.regions import Spacing
from ccsd.packed.scores import Scores
from ccsd.records import Calibration, RunRecord, short_hash
from ccsd.report.statistics import by_key

NOT_CLINICAL = (
    "**Not for clinical use.** This is research software; no authority has cleared it for any use in patients."
)
PHANTOMS = "**Of no use on patients:** it was trained on computed phantoms alone."
_METRICS = {"dice": ("Dice", 3), "hd95": ("HD95 in mm", 1)}


def card(
    name: str,
    members: Sequence[Member],
    records: Sequence[RunRecord],
    scores: Scores | None,
    notes: Sequence[str],
    calibration: Calibration | None = None,
) -> str:
    """Return the model card as Markdown; `records` are the packed records of the members."""
    lines = [f"# {name}", "", NOT_CLINICAL]
    if any(record.config.get("phantom") for record in records):
        lines += ["", PHANTOMS]
    lines += ["", *notes] if notes else []
    lines += ["", *_about(members), "", "## Training", ""]
    for member, record in zip(members, records, strict=True):
        lines += _training(member, record)
    lines += ["", "## Scores", "", *_scores(scores)]
    lines += [] if calibration is None else ["", "## Expected Dice", "", _calibrated(calibration)]
    lines += ["", "## What it was not tested on", ""]
    lines += [f"- {text}" for text in _untested(members, records, scores)]
    return "\n".join(lines) + "\n"


def _about(members: Sequence[Member]) -> Iterator[str]:
    first = members[0]
    task, spacing = first.config.task, training_spacing(first.record)
    sequences = ", ".join(f"{name} ({task.sequences[name]})" for name in task.modalities)
    regions = "; ".join(f"{name}: {' + '.join(classes)}" for name, classes in task.regions.items())
    yield "| | |"
    yield "|---|---|"
    yield f"| task | {task.name} (`{task.label}`) |"
    yield f"| sequences | {sequences}; any one or more of them |"
    yield f"| regions | {regions} |"
    yield f"| input | skull-stripped, registered to one another, background 0; resampled to {in_mm(spacing)} |"
    yield f"| models | {len(members)}{', whose probabilities are averaged' if len(members) > 1 else ''} |"
    yield f"| model hash | `{hash_of(members)}` |"
    needed = dict.fromkeys(str(plugin) for member in members for plugin in member.record.plugins)
    if needed:
        yield f"| needs | {'; '.join(needed)} |"


def _training(member: Member, record: RunRecord) -> Iterator[str]:
    config, train, model = member.config, member.config.train, member.config.model
    window = " x ".join(map(str, train.patch))
    size = f", width {model.width}, {model.levels} levels" if model.backbone in UNETS else ""
    fold = "" if member.fold is None else f", fold {member.fold}"
    at = f", weights of step {record.selected_step}" if record.selected_step not in (None, record.steps) else ""
    yield f"- **{member.identity.experiment}**, seed {train.seed}{fold}: weights `{short_hash(record.model_hash)}`"
    yield f"  - data: {_data(record.config)}; files `{_short(record.data_hash)}`, split `{_short(record.split_hash)}`"
    yield f"  - network {model.backbone}{size}; window {window} voxels; method {config.distillation.method}"
    yield (
        f"  - {record.steps or train.steps} steps of {train.batch_size} patches{at}; {train.optimizer}, learning rate "
        f"{train.learning_rate:g}, {train.precision}"
    )
    yield f"  - {record.origin}; ccsd {record.versions.get('ccsd', 'unknown')}, source {record.git or 'unknown'}"


def _data(config: Mapping[str, Any]) -> str:
    """Return the data of a study: its name, and its phantoms or the last part of its folder."""
    if phantom := config.get("phantom"):
        return f"study {config['name']}: {phantom['cases']} phantoms of {phantom['size']}^3 voxels"
    return f"study {config['name']}, from the folder {config.get('source')}"


def _short(digest: str) -> str:
    return short_hash(digest) or "unknown"


def _scores(scores: Scores | None) -> Iterator[str]:
    if scores is None:
        yield "**Not evaluated:** no scores of these weights were given or found when the model was packed."
        return
    identity, task = scores.record.identity, scores.record.task
    yield (
        f"Mean over {len(identity.cases)} test cases, with the 95 % bootstrap interval over cases. "
        f"Split `{_short(str(identity.split_hash))}`, rules `{identity.task}`; {scores.record.policy_text}"
    )
    rows = by_key(scores.summary)
    ((name, *_), *_) = rows
    for metric, (title, digits) in _METRICS.items():
        yield ""
        yield f"| {title} | {' | '.join(task.scored_regions)} |"
        yield f"|---|{'---|' * len(task.scored_regions)}"
        for scope, group in dict.fromkeys((key[1], key[2]) for key in rows if key[1] != "size"):
            cells = [rows.get((name, scope, group, region, metric)) for region in task.scored_regions]
            row = "all of these" if scope == "overall" else group
            yield f"| {row} | {' | '.join(_cell(cell, digits) for cell in cells)} |"


def _calibrated(found: Calibration) -> str:
    """Return what the models were calibrated with, and where the calibration applies."""
    counts = (found.cases, "case"), (found.patients, "patient")
    cases, patients = (f"{count} {word}{'s' * (count != 1)}" for count, word in counts)
    settings = f"windows with overlap {found.settings.get('overlap')}"
    settings += f" and {'' if found.settings.get('flips') else 'no '}mirror images"
    none = all(curve.low is None for curve in found.curves)
    interval = "too few for an interval" if none else f"with an interval for {100 * found.level:g} % of such cases"
    return (
        f"Calibrated with {cases} of {patients}, {interval}: validation cases of the files "
        f"`{_short(found.data_hash)}`, split `{_short(found.split_hash)}`. Valid for such cases and for {settings}; "
        f"ccsd {found.versions.get('ccsd', 'unknown')}."
    )


def _cell(row: Mapping[str, Any] | None, digits: int) -> str:
    if row is None or math.isnan(row["mean"]):
        return "-"
    if math.isnan(row["low"]):
        return f"{row['mean']:.{digits}f}"
    return f"{row['mean']:.{digits}f} ({row['low']:.{digits}f} to {row['high']:.{digits}f})"


def _untested(members: Sequence[Member], records: Sequence[RunRecord], scores: Scores | None) -> Iterator[str]:
    task = members[0].config.task
    if scores is None:
        yield "anything: the model has not been evaluated"
    else:
        if any(record.config.get("phantom") for record in records):
            yield "patients: it was trained on computed phantoms only"
        yield "data of any other origin: other scanners, sequences, hospitals, ages and diseases"
        if unscored := [name for name in task.subset_names if name not in scores.record.identity.subsets]:
            yield f"the combinations {', '.join(unscored)}"
        own = {record.split_hash for record in records}
        if scores.record.identity.split_hash not in own and all(member.fold is None for member in members):
            yield "cases that are known to be held out: the scored cases come from another split than its training"
    yield f"images whose voxels are not about {in_mm(_spacing(members))}: they are resampled to that"
    yield "images with a skull, images that are not registered to one another, sequences that the task does not have"
    if any(record.may_know_test_cases for record in records):
        yield (
            "cases that are certain to be new to it: the model it was fine-tuned from was trained with another split "
            "of the same data"
        )


def _spacing(members: Sequence[Member]) -> Spacing:
    return training_spacing(members[0].record)

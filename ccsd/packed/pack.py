"""`ccsd pack RUN... OUT.ccsd`: finished runs as one file, with a card, and without paths of this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from ccsd.errors import UsageError
from ccsd.inference.calibrated import read_calibration
from ccsd.inference.ensemble import Member, evaluated_as, hash_of, load_ensemble, read_members
from ccsd.packed import archive, frame
from ccsd.packed.card import card
from ccsd.packed.portable import reject_local_references
from ccsd.packed.scores import read_scores
from ccsd.records import RunRecord, Start
from ccsd.saved import Weights, part_hash
from ccsd.study import CALIBRATION_FILE, RECORD_FILE, WEIGHTS


@dataclass(frozen=True)
class Packed:
    """A file that was written."""

    path: Path
    sha256: str
    """SHA-256 of the whole file, for a URL."""
    manifest: archive.Manifest
    notes: tuple[str, ...] = ()
    """Notes for the user."""


def pack(
    models: Sequence[Path | str], out: Path, evaluations: Sequence[Path] = (), notes: Sequence[str] = ()
) -> Packed:
    """Write one model, or several as one, into a self-contained file; equal input gives equal bytes.

    Parameters
    ----------
    models
        Runs (or packed files), in the order of an ensemble.
    out
        The file; its name ends in `.ccsd`.
    evaluations
        Folders of their scores; by default those in the study of the runs.
    notes
        Lines for the card: licence, citation, remarks.

    Raises
    ------
    UsageError
        If the models cannot be used or do not fit together, the scores belong to other models, or a setting of a
        plugin has a path of this machine.
    """
    if out.suffix != archive.SUFFIX or out.is_dir():
        raise UsageError(
            f"{out}: the name of a packed model must end in {archive.SUFFIX}, such as ccsd{archive.SUFFIX}"
        )
    members = read_members(models)
    for member in members:
        reject_local_references(member.saved)
    records = [portable(member) for member in members]
    for member, record in zip(members, records, strict=True):
        frame.reject_control_characters(_as_json(record), f"{member.where}/{RECORD_FILE}")
    load_ensemble(members)  # rejects what could not be read back
    scores = read_scores(members, evaluations)
    task, name = members[0].config.task, evaluated_as(members)
    contents: dict[str, bytes | Weights] = {}
    for number, (member, record) in enumerate(zip(members, records, strict=True), 1):
        folder = f"models/{number}"
        contents[f"{folder}/{WEIGHTS}"] = replace(member.saved.weights, expected=record.model_hash)
        contents[f"{folder}/{RECORD_FILE}"] = _as_json(record)
    contents[frame.TASK] = yaml.safe_dump(task.model_dump(mode="json"), sort_keys=False).encode()
    if (calibration := read_calibration(members)) is not None:
        contents[CALIBRATION_FILE] = calibration.model_dump_json(indent=2).encode() + b"\n"
    contents[frame.CARD] = card(name, members, records, scores, notes, calibration).encode()
    about = {
        "name": name,
        "task": task.label,
        "sequences": task.modalities,
        "regions": tuple(task.regions),
        "model_hash": hash_of(members),
        "models": tuple(evaluated_as([member]) for member in members),
        "dice": scores.overall if scores else {},
    }
    manifest = archive.write(out, contents, about)
    unscored = (
        () if scores else ("not evaluated: no scores were found; if there are any, select them with --evaluation",)
    )
    return Packed(out, part_hash(out), manifest, unscored)


def portable(member: Member) -> RunRecord:
    """Return the record of a run without paths of this machine: only the last part of a path is kept.

    The options of a plugin are kept as they are, because the network is built with them.
    """
    record = member.record
    config = dict(record.config)
    kept = {"task": config.get("task"), "model": config.get("model")}
    config = {key: kept[key] if key in kept else _without_folders(value) for key, value in config.items()}
    return record.model_copy(
        update={
            "config": config,
            "experiment": member.identity.experiment,
            **({"start": _anywhere(record.start)} if record.start else {}),
        }
    )


def _anywhere(start: Start) -> Start:
    earlier = {"start": _anywhere(start.start)} if start.start else {}
    return start.model_copy(update={"run": _last_part(start.run), **earlier})


def _as_json(record: RunRecord) -> bytes:
    return record.model_dump_json(indent=2, exclude_unset=True).encode() + b"\n"


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    return _last_part(value) if isinstance(value, str) else value


def _last_part(text: str) -> str:
    """Return the last part of a path, of Windows or not; a text without folders is returned as it is."""
    return PureWindowsPath(text).name or text.strip("/\\")

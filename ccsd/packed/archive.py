"""The format of a packed model: a zip file with a few known members, uncompressed, each with its SHA-256.

    models/1/model.safetensors, models/1/run.json, ...     one folder for each model of an ensemble
    task.yaml, card.md                                     the task; the card for people
    calibration.json                                       if the models are calibrated: which Dice to expect
    model.json                                             format, names, and size and SHA-256 of each member above

The comment at the end of the file has the SHA-256 of everything outside the members' content, so that no byte can
change unnoticed. Equal models give equal bytes. Nothing is ever extracted: weights are memory-mapped in place, which
their alignment in the file (a multiple of 64 bytes) allows, and other members are read into memory up to a limit.
"""

import hashlib
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pydantic import BaseModel, ConfigDict, ValidationError

from ccsd.errors import UsageError
from ccsd.packed.frame import (
    CARD,
    LOCAL_HEADER,
    MANIFEST,
    REGULAR_FILE,
    SEAL,
    SEALED,
    TASK,
    Span,
    find_spans,
    frame_hash,
    is_packed,
    reject_control_characters,
    reject_unknown_members,
)
from ccsd.packed.portable import reject_local_references
from ccsd.records import Calibration, RunRecord
from ccsd.saved import BLOCK, SavedModel, Weights, joint_hash
from ccsd.study import CALIBRATION_FILE, RECORD_FILE, WEIGHTS
from preprocess.errors import first_few
from preprocess.files import complete_or_absent

FORMAT = 1
SUFFIX = ".ccsd"

_ALIGNED = 64
_PADDING = 0xD935
"""Extra field that Android's zipalign uses for padding."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True)
    size: int
    sha256: str


class Manifest(BaseModel):
    """`model.json`: the contents of the file. Keys of a later version are ignored if the format is the same."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int
    name: str
    """Name of the run, or of the ensemble."""
    task: str
    """Label of the task: its name and digest."""
    sequences: tuple[str, ...]
    regions: tuple[str, ...]
    model_hash: str
    """SHA-256 of the weights; for several models, that of their hashes in order, one per line."""
    models: tuple[str, ...]
    """Names of the runs, in order."""
    dice: dict[str, float] = {}
    """Mean over all combinations that were scored, by region; empty without scores."""
    files: dict[str, _Entry]


@dataclass(frozen=True)
class PackedFile:
    """A packed model whose frame and texts have been checked; the weights are checked when they are read."""

    path: Path
    where: str
    manifest: Manifest
    spans: Mapping[str, Span]

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return self.text(CARD).decode("utf-8", errors="replace")

    def text(self, name: str) -> bytes:
        """Return the content of a member other than weights.

        Raises
        ------
        UsageError
            If it is damaged.
        """
        span = self.spans[name]
        with self.path.open("rb") as file:
            file.seek(span.start)
            content = file.read(span.size)
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name].sha256:
            raise damaged(self.where, f"{name} has changed since it was packed")
        return content

    def models(self) -> tuple[SavedModel, ...]:
        """Return the models in it, in order.

        Raises
        ------
        UsageError
            If the record of one is damaged or cannot be used.
        """
        found = tuple(self._model(number, name) for number, name in enumerate(self.manifest.models, 1))
        for model in found:
            task, held = model.config.task, self.manifest
            stated = held.task.partition("@")[0], held.sequences, held.regions
            if stated != (task.name, task.modalities, tuple(task.regions)):
                raise damaged(model.where, f"{MANIFEST} and {RECORD_FILE} belong to different tasks")
        return found

    def _model(self, number: int, name: str) -> SavedModel:
        several = len(self.manifest.models) > 1
        where = f"{self.where}, model {number} ({name})" if several else self.where
        weights = f"models/{number}/{WEIGHTS}"
        span, entry = self.spans[weights], self.manifest.files[weights]
        content = self.text(f"models/{number}/{RECORD_FILE}")
        record = RunRecord.parse(content, f"{where}, {RECORD_FILE}")
        reject_control_characters(content, f"{where}, {RECORD_FILE}")
        if record.model_hash != entry.sha256:
            raise damaged(where, f"{RECORD_FILE} describes other weights")
        label = f"{name} of {self.manifest.name}" if several else name
        weight = Weights(self.path, span.start, span.size, entry.sha256)
        saved = SavedModel(where, label, record, weight, calibration=self._calibration())
        reject_local_references(saved)
        return saved

    def _calibration(self) -> Calibration | None:
        if CALIBRATION_FILE not in self.spans:
            return None
        content = self.text(CALIBRATION_FILE)
        found = Calibration.parse(content, f"{self.where}, {CALIBRATION_FILE}")
        reject_control_characters(content, f"{self.where}, {CALIBRATION_FILE}")
        if found.model_hash != self.manifest.model_hash:
            raise damaged(self.where, f"{CALIBRATION_FILE} belongs to other weights")
        return found

    def check(self) -> None:
        """Check every member, the weights included.

        Raises
        ------
        UsageError
            If one is damaged or its record cannot be used.
        """
        for model in self.models():
            check_weights(model)
        for name in (CARD, TASK):
            self.text(name)


def check_weights(model: SavedModel) -> None:
    """Check that weights in a packed file are those that were packed.

    Raises
    ------
    UsageError
        If they are not.
    """
    if model.weights.expected and model.weights.sha256() != model.weights.expected:
        raise damaged(model.where, "the weights have changed since they were packed")


def damaged(where: str, what: str) -> UsageError:
    """Return the error for a packed file that has changed since it was written."""
    return UsageError(f"{where}: damaged: {what}; copy or download the file again, or pack the run again")


def write(path: Path, contents: Mapping[str, bytes | Weights], about: Mapping[str, object]) -> Manifest:
    """Write a packed model, completely or not at all.

    Parameters
    ----------
    path
        Where to write it.
    contents
        Texts and weights by member, in the order in which they are written.
    about
        The keys of `model.json` other than `format` and `files`.
    """
    files: dict[str, _Entry] = {}
    with complete_or_absent(path) as temporary, temporary.open("w+b") as file:
        with ZipFile(file, "w", ZIP_STORED) as archive:
            for name, content in contents.items():
                files[name] = _add(archive, file, name, content)
            manifest = Manifest.model_validate({**about, "format": FORMAT, "files": files})
            _add(archive, file, MANIFEST, manifest.model_dump_json(indent=2).encode() + b"\n")
            archive.comment = bytes(SEALED)
        size = file.tell()
        spans = find_spans(archive, file, size)
        seal = SEAL + frame_hash(file, spans, size).encode()
        file.seek(size - SEALED)
        file.write(seal)
    return manifest


def _add(archive: ZipFile, file: BinaryIO, name: str, content: bytes | Weights) -> _Entry:
    """Copy content to a member whose data starts at a multiple of 64 bytes."""
    info = ZipInfo(name)  # dated 1980, so that equal content gives equal bytes
    info.create_system, info.external_attr = 3, REGULAR_FILE << 16
    begun = file.tell() + LOCAL_HEADER + len(name) + 4
    padding = -begun % _ALIGNED
    info.extra = struct.pack("<HH", _PADDING, padding) + bytes(padding)
    if isinstance(content, bytes):
        archive.writestr(info, content)
        return _Entry(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    size = content.path.stat().st_size if content.size is None else content.size
    info.file_size = size
    with content.path.open("rb") as source, archive.open(info, "w") as target:
        source.seek(content.start)
        copied = _Hashed(source, size)
        shutil.copyfileobj(copied, target, BLOCK)
    sha256 = copied.hash.hexdigest()
    if content.expected != sha256:
        raise UsageError(f"{content.path}: was replaced while it was being packed; pack it again")
    return _Entry(size=size, sha256=sha256)


class _Hashed:
    """A part of a file that is hashed as it is read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left, self.hash = file, size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        block = self.file.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(block)
        self.hash.update(block)
        return block


def read(path: Path, where: str | None = None) -> PackedFile:
    """Read a packed model without its weights, and check everything else.

    Parameters
    ----------
    path
        The file.
    where
        Its name in messages; its path by default.

    Raises
    ------
    UsageError
        If it is not a packed model, is damaged, has another format, or has members that a packed model does not have.
    """
    where = where or str(path)
    if not path.is_file():
        raise UsageError(f"{where}: no such file")
    if not is_packed(path):
        raise UsageError(
            f"{where}: not a packed model, or truncated: its end is missing; `ccsd pack` writes such files. Copy or "
            "download it again"
        )
    try:
        with path.open("rb") as file, ZipFile(file) as archive:
            reject_unknown_members(archive, where)
            size = path.stat().st_size
            spans = find_spans(archive, file, size)
            file.seek(size - SEALED)
            if file.read() != SEAL + frame_hash(file, spans, size).encode():
                raise damaged(where, "its table of contents has changed since it was packed")
            manifest = _manifest(archive.read(MANIFEST), where)
    except (BadZipFile, KeyError, ValueError, OSError, NotImplementedError, RuntimeError, struct.error) as error:
        if isinstance(error, UsageError):
            raise
        raise damaged(where, str(error) or type(error).__name__) from None
    _reject_mismatch(manifest, spans, where)
    return PackedFile(path, where, manifest, spans)


def _manifest(content: bytes, where: str) -> Manifest:
    try:
        form = _Format.model_validate_json(content).format
        if form != FORMAT:
            raise UsageError(
                f"{where}: a packed model of format {form}, but this version of ccsd reads format {FORMAT}; update "
                "ccsd, or pack the run again with this version"
            )
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise damaged(where, f"{MANIFEST}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    reject_control_characters(content, f"{where}, {MANIFEST}")
    return manifest


class _Format(BaseModel):
    format: int


def _reject_mismatch(manifest: Manifest, spans: Mapping[str, Span], where: str) -> None:
    """Reject a file whose members are not exactly those in its list and those of its models."""
    numbers = range(1, len(manifest.models) + 1)
    wanted = {CARD, TASK, *(f"models/{n}/{name}" for n in numbers for name in (RECORD_FILE, WEIGHTS))}
    wanted |= {CALIBRATION_FILE} & set(manifest.files)  # not every model is calibrated
    for what, names in (("the list in model.json", set(manifest.files)), ("the file", set(spans) - {MANIFEST})):
        if names != wanted or not manifest.models:
            odd = first_few(sorted(names ^ wanted), 5) or "models"
            raise damaged(where, f"{what} does not match its models ({odd})")
    for name, entry in manifest.files.items():
        if entry.size != spans[name].size:
            raise damaged(where, f"{name} has {spans[name].size} bytes, not {entry.size}")
    if manifest.model_hash != joint_hash([manifest.files[f"models/{n}/{WEIGHTS}"].sha256 for n in numbers]):
        raise damaged(where, f"model_hash in {MANIFEST} does not match the weights")

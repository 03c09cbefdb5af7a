"""The frame of a packed model: its members, their positions, and the seal over everything but their content."""

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from ccsd.errors import UsageError
from ccsd.study import CALIBRATION_FILE, RECORD_FILE, WEIGHTS

MANIFEST, CARD, TASK = "model.json", "card.md", "task.yaml"
MOST_TEXT = 16 << 20
"""Largest size in bytes of a member other than weights."""

_MEMBER = re.compile(
    rf"({MANIFEST}|{CARD}|{TASK}|{CALIBRATION_FILE}|models/[1-9][0-9]{{0,2}}/({RECORD_FILE}|{WEIGHTS}))", re.ASCII
)
SEAL = b"ccsd model, sha256 of the frame: "
SEALED = len(SEAL) + 64
LOCAL_HEADER = 30
REGULAR_FILE = 0o100644


@dataclass(frozen=True)
class Span:
    """Position of a member in the file, in bytes."""

    start: int
    """Start of its content."""
    size: int
    header: int
    """Start of its header."""


def is_packed(path: Path) -> bool:
    """Return whether a file is marked as a packed model at its end."""
    try:
        with path.open("rb") as file:
            file.seek(-SEALED, 2)
            return file.read(len(SEAL)) == SEAL
    except OSError:
        return False


def printable(text: str) -> str:
    """Return a text without the characters that could control a terminal."""
    return "".join(char for char in text if char.isprintable() or char == "\n")


def reject_control_characters(content: bytes, where: str) -> None:
    """Reject JSON with control characters, which would reach terminals, tables and pages.

    Raises
    ------
    UsageError
        If a text or a key in it has one.
    """
    for text in _texts(json.loads(content)):
        if printable(text) != text:
            raise UsageError(
                f"{where}: has control characters in {text[:100]!r}, which are not allowed in a packed model; if the "
                "model is yours, rename that and pack it again, otherwise do not use it"
            )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def reject_unknown_members(archive: ZipFile, where: str) -> None:
    """Reject members that a packed model does not have: nothing is extracted, and nothing should tempt users to."""
    seen: set[str] = set()
    for info in archive.infolist():
        name = info.orig_filename
        if name in seen:
            raise UsageError(f"{where}: has {name!r} twice; not written by `ccsd pack`, do not use it")
        if not _MEMBER.fullmatch(name):
            raise UsageError(
                f"{where}: has a member {name[:200]!r}, which is not allowed in a packed model; not written by `ccsd "
                "pack`, do not use it"
            )
        seen.add(name)
        is_plain = info.external_attr >> 16 == REGULAR_FILE and not info.flag_bits and info.compress_type == ZIP_STORED
        if not is_plain or info.compress_size != info.file_size:
            raise UsageError(
                f"{where}: {name} is compressed, encrypted or a link; members of a packed model must be uncompressed "
                "plain files. Not written by `ccsd pack`, do not use it"
            )
        if not name.endswith(WEIGHTS) and info.file_size > MOST_TEXT:
            raise UsageError(f"{where}: {name} has {info.file_size} bytes; at most {MOST_TEXT} are read; do not use it")


def find_spans(archive: ZipFile, file: BinaryIO, size: int) -> dict[str, Span]:
    """Return the positions of the members, which follow each other without gaps from the first byte."""
    spans, end = {}, 0
    for info in sorted(archive.infolist(), key=lambda item: item.header_offset):
        if info.header_offset != end:
            raise BadZipFile(f"{info.filename} does not start where the previous member ends")
        file.seek(end)
        header = file.read(LOCAL_HEADER)
        name, extra = struct.unpack("<HH", header[26:])
        start = end + LOCAL_HEADER + name + extra
        spans[info.filename] = Span(start, info.file_size, end)
        end = start + info.file_size
        if end > size:
            raise BadZipFile(f"{info.filename} is longer than the file")
    return spans


def frame_hash(file: BinaryIO, spans: Mapping[str, Span], size: int) -> str:
    """Return the SHA-256 of all bytes outside the members' content, except the comment that stores it."""
    found = hashlib.sha256()
    end = 0
    for span in spans.values():
        file.seek(span.header)
        found.update(file.read(span.start - span.header))
        end = span.start + span.size
    file.seek(end)
    found.update(file.read(size - SEALED - end))
    return found.hexdigest()

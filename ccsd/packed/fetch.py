"""Download packed models from URLs with a checksum or from Hugging Face, and cache them for use offline."""

import hashlib
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException, IncompleteRead
from pathlib import Path

from ccsd.errors import UsageError
from ccsd.extras import require
from ccsd.packed.archive import SUFFIX
from ccsd.packed.frame import printable
from ccsd.saved import BLOCK, part_hash
from preprocess.files import complete_or_absent, make_folder

CACHE = "CCSD_CACHE"
TIMEOUT_S = 60
HUB = "hf:"
_WEB = re.compile(r"https?://\S+")
_CHECKED = re.compile(r"(?P<address>https?://[^#\s]+)#sha256=(?P<sha256>[0-9a-fA-F]{64})")
_HUB = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)", re.ASCII)


def is_address(text: str) -> bool:
    """Return whether a text names a model on the network, even if it is malformed."""
    return text.startswith(HUB) or "://" in text


def fetched(text: str) -> Path:
    """Return the packed file of a URL, after downloading it unless it is in the cache.

    Raises
    ------
    UsageError
        If the URL is incomplete or cannot be downloaded, or the file has another checksum.
    """
    return _from_hub(text) if text.startswith(HUB) else _from_web(text)


def cache_folder() -> Path:
    """Return the cache of downloaded files, by SHA-256: in `$CCSD_CACHE`, or `ccsd` in the user's cache folder."""
    if own := os.environ.get(CACHE):
        return Path(own) / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ccsd" / "models"


def _from_web(text: str) -> Path:
    found = _CHECKED.fullmatch(text)
    if found is None:
        problem = "the checksum is missing or not a SHA-256" if _WEB.fullmatch(text) else "not a web address"
        raise UsageError(
            f"{text}: {problem}; write https://ADDRESS#sha256=DIGEST with the 64 digits that `ccsd pack` printed"
        )
    sha256 = found["sha256"].lower()
    kept = cache_folder() / f"{sha256}{SUFFIX}"
    if kept.is_file():
        if part_hash(kept) == sha256:
            return kept
        kept.unlink(missing_ok=True)
    make_folder(kept.parent)
    with complete_or_absent(kept) as temporary:
        _download(found["address"], temporary, sha256)
    return kept


def _download(address: str, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer, target.open("wb") as file:  # noqa: S310 - http
            while block := answer.read(BLOCK):
                digest.update(block)
                file.write(block)
            if answer.length:  # bytes of the announced length that did not arrive
                raise IncompleteRead(b"", answer.length)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = printable(str(getattr(error, "reason", None) or error))
        raise UsageError(
            f"{address}: cannot be downloaded: {reason}; check the address and the network, or copy the file here by "
            "other means and give its path"
        ) from None
    if digest.hexdigest() != sha256:
        raise UsageError(
            f"{address}: the file has the SHA-256 {digest.hexdigest()}, not {sha256}; it is another file or was "
            "changed: ask whoever gave you the address"
        )


def _from_hub(text: str) -> Path:
    found = _HUB.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text}: write hf:ORG/NAME@REVISION; the revision, a tag or a commit, is required, so that the model does "
            "not change unnoticed"
        )
    require("hub", f"--model {text}")
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(found["repository"], revision=found["revision"], allow_patterns=f"*{SUFFIX}")
    except Exception as error:  # its own, and those of its HTTP library, whichever that is
        reason = printable(" ".join(str(error).split()))[:500]
        raise UsageError(
            f"{text}: cannot be downloaded, and is not in the cache: {reason}; check name, revision and network"
        ) from error
    files = sorted(Path(folder).rglob(f"*{SUFFIX}"))
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise UsageError(
            f"{text}: must have exactly one packed model ({SUFFIX}), but has: {names}; download the file that you want "
            "and give its path"
        )
    return files[0]

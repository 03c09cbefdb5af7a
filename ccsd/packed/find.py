"""Find the models that `--model` and `train.init` name: a run, a packed file, a name or a URL."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ccsd.errors import UsageError
from ccsd.packed import archive, fetch, frame
from ccsd.saved import SavedModel
from ccsd.study import RECORD_FILE
from preprocess.errors import first_few

VARIABLE = "CCSD_MODELS"
SHIPPED = Path(__file__).parent
"""Folder of the models included in the program."""
FORMS = (
    f"give the folder of a finished run, a packed file ({archive.SUFFIX}), the name of a model in {VARIABLE}, "
    "https://ADDRESS#sha256=DIGEST, or hf:ORG/NAME@REVISION"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def saved_models(model: Path | str) -> tuple[SavedModel, ...]:
    """Return the models that a text names: one, or those of a packed ensemble, in order. The weights are not read.

    Parameters
    ----------
    model
        Folder of a run, packed file, name of one in the folders of `CCSD_MODELS` (or of one included in the program),
        `https://...#sha256=...`, or `hf:ORG/NAME@REVISION`. A file or folder that exists has priority over a name.

    Raises
    ------
    UsageError
        If there is none, or it cannot be used.
    """
    path = located(model)
    if _is_file(path) and (path.suffix == archive.SUFFIX or frame.is_packed(path)):
        return archive.read(path, str(model)).models()
    if _exists(path) and not (path / RECORD_FILE).exists() and (named := dict(named_files()).get(str(model))):
        raise UsageError(
            f"{model}: not a finished run ({RECORD_FILE} is missing), but it hides the model of this name; give the "
            f"model's file, {named}"
        )
    return (SavedModel.of_run(path),)


def single_model(model: Path | str) -> SavedModel:
    """Return the model that a text names, for use where several are not possible.

    Raises
    ------
    UsageError
        If there is none, it cannot be used, or it is a packed ensemble.
    """
    found = saved_models(model)
    if len(found) > 1:
        raise UsageError(
            f"{model}: contains {len(found)} models as one, but exactly one is needed here; pack or give a single run"
        )
    return found[0]


def located(model: Path | str) -> Path:
    """Return the file or the folder that a text names, after downloading it if it is a URL.

    Raises
    ------
    UsageError
        If a URL cannot be downloaded, or a name is unknown.
    """
    text = str(model)
    if fetch.is_address(text):
        return fetch.fetched(text)
    path = Path(text)
    if _exists(path) or not _NAME.fullmatch(text):
        return path
    known = dict(named_files())
    stem = text.removesuffix(archive.SUFFIX)
    if stem in known:
        return known[stem]
    raise UsageError(
        f"{text}: not a finished run, a packed file or the name of a model; known names: "
        f"{first_few(list(known), 20) or 'none'}. {FORMS[0].upper()}{FORMS[1:]}"
    )


def named_files() -> Iterator[tuple[str, Path]]:
    """Yield the packed files that have a name, those of `CCSD_MODELS` first; for each name, the first is used.

    Raises
    ------
    UsageError
        If a folder of `CCSD_MODELS` is missing.
    """
    seen = set()
    for folder in model_folders():
        for path in sorted(folder.glob(f"[!.]*{archive.SUFFIX}")):
            if path.stem not in seen:
                seen.add(path.stem)
                yield path.stem, path


def model_folders() -> list[Path]:
    """Return the folders in which names are looked up."""
    given = [Path(text).expanduser() for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text]
    if missing := [folder for folder in given if not folder.is_dir()]:
        raise UsageError(
            f"{VARIABLE}: {missing[0]}: no such folder; give folders with packed models, joined by {os.pathsep!r}"
        )
    return [*given, SHIPPED]


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - False for names that are too long, where Path raises


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - likewise

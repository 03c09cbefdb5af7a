"""Which calibration belongs to models, and whether it holds for how they are used."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccsd.errors import UsageError
from ccsd.inference.brain import PAINTED
from ccsd.inference.ensemble import Member, hash_of
from ccsd.records import Calibration
from ccsd.study import CALIBRATION_FILE

if TYPE_CHECKING:
    from ccsd.config import Evaluation

SETTINGS = ("overlap", "flips", "painted")
"""What changes the segmentations, beside the weights."""
_DIGITS = 12


def calibration_file(members: Sequence[Member]) -> Path | None:
    """Return where a calibration of runs lies, beside run.json of the (first) run; None of a packed model."""
    folder = members[0].saved.folder
    if folder is None or any(member.saved.folder is None for member in members):
        return None
    if len(members) == 1:
        return folder / CALIBRATION_FILE
    return (folder / CALIBRATION_FILE).with_stem(f"calibration-{hash_of(members)[:_DIGITS]}")


def read_calibration(members: Sequence[Member]) -> Calibration | None:
    """Return the calibration of models, if there is one.

    Raises
    ------
    UsageError
        If it cannot be read, or is of other weights.
    """
    wanted, path = hash_of(members), calibration_file(members)
    if path is None:
        packed = [member.saved.calibration for member in members]
        return next((found for found in packed if found is not None and found.model_hash == wanted), None)
    if not path.exists():
        return None
    found = Calibration.parse(path.read_bytes(), path)
    if found.model_hash != wanted:
        raise UsageError(
            f"{path}: is of other weights (model {found.model_hash[:_DIGITS]}) than {members[0].where} (model "
            f"{wanted[:_DIGITS]}); run `ccsd calibrate` again, or remove it"
        )
    return found


def decisive(settings: "Evaluation") -> dict[str, Any]:
    """Return what of an evaluation changes the segmentations, beside the weights."""
    return dict(zip(SETTINGS, (settings.overlap, settings.flips, PAINTED), strict=True))


def unlike(calibration: Calibration, settings: "Evaluation", *, cleanup: bool) -> str:
    """Return in what a calibration differs from how the models are used, in words; empty where it holds."""
    used = decisive(settings)
    words = [f"{key} {calibration.settings.get(key)}, not {used[key]}" for key in used if (
        calibration.settings.get(key) != used[key]
    )]  # fmt: skip
    return ", ".join([*words, *(["without --cleanup"] if cleanup else [])])

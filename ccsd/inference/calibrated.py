"""Find the calibration of models, and check whether it applies to how they are used."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccsd.errors import UsageError
from ccsd.inference.brain import PAINTED
from ccsd.inference.ensemble import Member, hash_of
from ccsd.records import Calibration, ExpectedDice, short_hash
from ccsd.study import CALIBRATION_FILE

if TYPE_CHECKING:
    from ccsd.config import Evaluation

SETTINGS = ("overlap", "flips", "painted")
"""Settings that affect the segmentations, apart from the weights."""
DOUBT = "expected Dice: "
"""Prefix of warnings about the expected Dice."""


def calibration_file(members: Sequence[Member]) -> Path | None:
    """Return the path of the calibration of runs, beside run.json of the (first) run; None for a packed model."""
    folder = members[0].saved.folder
    if folder is None or any(member.saved.folder is None for member in members):
        return None
    if len(members) == 1:
        return folder / CALIBRATION_FILE
    return (folder / CALIBRATION_FILE).with_stem(f"calibration-{short_hash(hash_of(members))}")


def read_calibration(members: Sequence[Member]) -> Calibration | None:
    """Return the calibration of models, if there is one.

    Raises
    ------
    UsageError
        If it cannot be read, or belongs to other weights.
    """
    wanted, path = hash_of(members), calibration_file(members)
    if path is None:
        packed = [member.saved.calibration for member in members]
        return next((found for found in packed if found is not None and found.model_hash == wanted), None)
    if not path.exists():
        return None
    found = Calibration.read_file(path)
    if found.model_hash != wanted:
        raise UsageError(
            f"{path}: belongs to other weights (model {short_hash(found.model_hash)}) than {members[0].where} (model "
            f"{short_hash(wanted)}); run `ccsd calibrate` again, or remove the file"
        )
    return found


def decisive(settings: "Evaluation") -> dict[str, Any]:
    """Return the settings of an evaluation that affect the segmentations, apart from the weights."""
    return dict(zip(SETTINGS, (settings.overlap, settings.flips, PAINTED), strict=True))


def unlike(calibration: Calibration, settings: "Evaluation", *, cleanup: bool) -> str:
    """Return how a calibration differs from how the models are used, in words; empty if it applies."""
    used = decisive(settings)
    words = [f"{key} {calibration.settings.get(key)}, not {used[key]}" for key in used if (
        calibration.settings.get(key) != used[key]
    )]  # fmt: skip
    return ", ".join([*words, *(["without --cleanup"] if cleanup else [])])


def expectations(
    calibration: Calibration | None, sequences: int, confidence: Mapping[str, float], *, resampled: bool
) -> tuple[dict[str, ExpectedDice], tuple[str, ...]]:
    """Return the Dice to expect by region, for regions that the calibration covers, and warnings about it.

    Parameters
    ----------
    calibration
        That of the models, if there is one.
    sequences
        How many sequences were used.
    confidence
        Confidence by region; NaN where nothing is painted.
    resampled
        Whether the case was resampled to the voxel spacing of the training.
    """
    if calibration is None:
        return {}, ()
    if resampled and not calibration.resampled:
        return {}, (f"{DOUBT}none, because the voxels were resampled, unlike in every case of the calibration",)
    found = {name: calibration.expected(name, sequences, sure) for name, sure in confidence.items()}
    expected = {name: one for name, one in found.items() if one is not None}
    return expected, tuple(_doubts(calibration, sequences, {name: confidence[name] for name in expected}))


def _doubts(calibration: Calibration, sequences: int, confidence: Mapping[str, float]) -> Iterator[str]:
    for region, sure in confidence.items():
        curve = calibration.curve(region, sequences)
        if curve is not None and sure < (least := curve.seen[0]):
            yield (
                f"{DOUBT}that of {region} may be too high, because the confidence, {sure:.2f}, is lower than in every "
                f"case of the calibration (lowest: {least:.2f})"
            )

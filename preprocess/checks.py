"""What must be right about a case before it is converted, and what is merely odd.

Each check has a name, so that `--allow NAME` can take it off; those without a way to go on cannot be taken off.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

from preprocess.errors import InputError
from preprocess.geometry import to_canonical
from preprocess.labels import CAVITY
from preprocess.load import Loaded
from preprocess.nifti import Volume

_AFFINE_TOLERANCE_MM = 0.01


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (`refuses`) or odd about a case."""

    check: str
    message: str
    refuses: bool

    def __str__(self) -> str:
        """Return the message with the name of the check."""
        return f"{self.message} [{self.check}]"


@dataclass(frozen=True)
class Check:
    """A named test of a loaded case that yields messages.

    Attributes
    ----------
    refuses
        Whether the case is refused, unless the check is allowed; otherwise it is a warning.
    allowable
        Whether `--allow` may take it off.
    """

    name: str
    run: Callable[[Loaded], Iterator[str]]
    refuses: bool = True
    allowable: bool = True


def examine(case: Loaded, allow: Collection[str] = ()) -> list[Finding]:
    """Return what is wrong or odd; a finding of an allowed check is kept as a warning.

    Raises
    ------
    InputError
        If `allow` names a check that there is not, or one that cannot be taken off.
    """
    check_names(allow)
    return [
        Finding(check.name, message, check.refuses and check.name not in allow)
        for check in CHECKS
        for message in check.run(case)
    ]


def check_names(allow: Collection[str]) -> None:
    """Refuse names that `--allow` cannot take off."""
    allowed = [check.name for check in CHECKS if check.allowable]
    for name in allow:
        if name not in allowed:
            raise InputError(f"--allow {name!r}: no such check, or one that cannot be taken off; allowed: {allowed}")


def _shapes(case: Loaded) -> Iterator[str]:
    shape = case.reference.array.shape
    first = next(iter(case.images))
    for name, volume in _with_label(case):
        if volume.array.shape != shape:
            yield f"{name} has shape {volume.array.shape}, {first} has {shape}; register and resample them together"


def _affines(case: Loaded) -> Iterator[str]:
    first = next(iter(case.images))
    corner = np.array([*case.reference.array.shape, 1.0])
    for name, volume in _with_label(case):
        gap = max(np.abs((volume.affine - case.reference.affine) @ point)[:3].max() for point in (np.eye(4)[3], corner))
        if not gap <= _AFFINE_TOLERANCE_MM:
            yield f"{name} lies up to {gap:.3g} mm away from {first} (affines differ); register them together"


def _directions(case: Loaded) -> Iterator[str]:
    try:
        to_canonical(case.reference.array, case.reference.affine)
    except InputError as error:
        yield str(error)


def _finite(case: Loaded) -> Iterator[str]:
    for name, volume in case.images.items():
        if volume.array.dtype.kind == "f" and (number := int((~np.isfinite(volume.array)).sum())):
            yield f"{name} has {number} voxels that are not finite (NaN or infinite); allowed, they count as background"


def _empty(case: Loaded) -> Iterator[str]:
    for name, volume in case.images.items():
        low, high = volume.array.min(), volume.array.max()
        if low == high == 0:
            yield f"{name} is 0 everywhere"
        elif (
            0 in (low, high)
            and sum(int(np.count_nonzero(volume.array == end)) for end in (low, high)) == volume.array.size
        ):
            yield f"{name} has one value ({low or high}) everywhere in the brain"


def _label_values(case: Loaded) -> Iterator[str]:
    allowed = {0, *case.convention.values, case.convention.cavity}
    wrong = {value: number for value, number in case.label_counts.items() if value not in allowed}
    if wrong:
        listed = ", ".join(f"{value} ({number} voxels)" for value, number in sorted(wrong.items()))
        yield f"wrong label values: {listed}; allowed in {case.convention.name}: {case.convention}"


def _cavity(case: Loaded) -> Iterator[str]:
    cavity = case.convention.cavity
    if cavity is not None and cavity in case.label_counts:
        yield (
            f"label {cavity} is a resection cavity ({case.label_counts[cavity]} voxels), which has no class here; "
            "allowed, it counts as background"
        )


def _with_label(case: Loaded) -> Iterator[tuple[str, Volume]]:
    yield from case.images.items()
    if case.label is not None:
        yield "segmentation", case.label


CHECKS = (
    Check("shape", _shapes, allowable=False),
    Check("affine", _affines),
    Check("direction", _directions, allowable=False),
    Check("not-finite", _finite),
    Check("empty", _empty, allowable=False),
    Check("label-values", _label_values, allowable=False),
    Check(CAVITY, _cavity),
)
"""Every check, in the order in which its findings are told."""

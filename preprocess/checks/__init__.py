"""Checks of a case before conversion: what must be right, and what is merely unusual.

Each check has a name, so that `--allow NAME` can disable it. Checks for cases that cannot be converted at all cannot be
disabled.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from preprocess.checks import contrast, grid, voxels
from preprocess.errors import InputError
from preprocess.source.load import Loaded


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (`rejects`: the case is rejected) or unusual about a case."""

    check: str
    message: str
    rejects: bool

    def __str__(self) -> str:
        """Return the message with the name of the check."""
        return f"{self.message} [{self.check}]"


@dataclass(frozen=True)
class Check:
    """A named test of a loaded case that yields messages.

    Attributes
    ----------
    rejects
        Whether the case is rejected, unless the check is allowed; otherwise a finding is a warning.
    allowable
        Whether `--allow` may disable it. What cannot be converted at all cannot be allowed.
    unless
        Name of an earlier check; if it finds something, this one is skipped because it would find the same.
    """

    name: str
    run: Callable[[Loaded], Iterator[str]]
    rejects: bool = True
    allowable: bool = True
    unless: str = ""


PLACEHOLDER = "placeholder"
"""Name of the check that, if it is allowed, leaves out the images that it finds."""

CHECKS = (
    Check(PLACEHOLDER, voxels.placeholders),
    Check("shape", grid.shapes, allowable=False),
    Check("direction", grid.directions, allowable=False),
    Check("affine", grid.affines),
    Check("shift", grid.shifts, rejects=False),
    Check("forms", grid.forms, rejects=False),
    Check("mirrored", grid.mirrored),
    Check("unplaced", grid.unplaced, rejects=False),
    Check("spacing", grid.spacing, rejects=False),
    Check("empty", voxels.empty, allowable=False),
    Check("not-finite", voxels.not_finite),
    Check("background-not-finite", voxels.background_not_finite, rejects=False),
    Check("background", voxels.background, rejects=False),
    Check("label-numbering", voxels.label_numbering, allowable=False),
    Check("label-values", voxels.label_values, allowable=False),
    Check("no-class", voxels.no_class),
    Check("brain-mask", voxels.brain_mask),
    Check("label-rounded", voxels.label_rounded, rejects=False),
    Check("label-empty", voxels.label_empty, rejects=False),
    Check("label-outside", voxels.label_outside, rejects=False),
    Check("contrast", contrast.contrasts, rejects=False),
    Check("flipped", contrast.flipped, rejects=False, unless="contrast"),
)
"""Every check, in the order in which findings are reported."""


def examine(case: Loaded, allow: Collection[str] = ()) -> list[Finding]:
    """Return what is wrong or unusual; a finding of an allowed check is kept as a warning.

    Checks of the voxels are skipped if the grids differ in shape or the label has unknown values.

    Raises
    ------
    InputError
        If `allow` names an unknown check, or one that cannot be disabled.
    """
    check_names(allow)
    findings: list[Finding] = []
    for check in CHECKS:
        if any(finding.check == check.unless for finding in findings):
            continue
        found = [Finding(check.name, text, check.rejects and check.name not in allow) for text in check.run(case)]
        findings += found
        if check.name == PLACEHOLDER:
            case = case.without_placeholders()
        if found and not check.allowable:
            break  # the following checks would fail because of it
    return findings


def check_names(allow: Collection[str]) -> None:
    """Reject names of checks that `--allow` cannot disable.

    Raises
    ------
    InputError
        If there is such a name; the message lists the allowed ones.
    """
    allowed = [check.name for check in CHECKS if check.allowable and check.rejects]
    for name in allow:
        if name not in allowed:
            raise InputError(
                f"--allow {name!r}: unknown check, or one that cannot be disabled; allowed: {', '.join(allowed)}"
            )

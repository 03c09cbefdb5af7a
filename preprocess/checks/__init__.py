"""What must be right about a case before it is converted, and what is merely odd.

Each check has a name, so that `--allow NAME` can take it off; those without a way to go on cannot be taken off.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from preprocess.checks import contrast, grid, voxels
from preprocess.errors import InputError
from preprocess.source.load import Loaded


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
        Whether `--allow` may take it off. What cannot be converted at all cannot be allowed.
    unless
        Name of an earlier check; when it finds something, this one is skipped because it would find the same.
    """

    name: str
    run: Callable[[Loaded], Iterator[str]]
    refuses: bool = True
    allowable: bool = True
    unless: str = ""


CHECKS = (
    Check("shape", grid.shapes, allowable=False),
    Check("direction", grid.directions, allowable=False),
    Check("affine", grid.affines),
    Check("mirrored", grid.mirrored),
    Check("unplaced", grid.unplaced, refuses=False),
    Check("spacing", grid.spacing, refuses=False),
    Check("empty", voxels.empty, allowable=False),
    Check("not-finite", voxels.not_finite),
    Check("duplicate", voxels.duplicates),
    Check("background", voxels.background, refuses=False),
    Check("label-numbering", voxels.label_numbering, allowable=False),
    Check("label-values", voxels.label_values, allowable=False),
    Check("no-class", voxels.no_class),
    Check("brain-mask", voxels.brain_mask),
    Check("label-rounded", voxels.label_rounded, refuses=False),
    Check("label-empty", voxels.label_empty, refuses=False),
    Check("label-outside", voxels.label_outside, refuses=False),
    Check("contrast", contrast.contrasts, refuses=False),
    Check("flipped", contrast.flipped, refuses=False, unless="contrast"),
)
"""Every check, in the order in which its findings are told."""


def examine(case: Loaded, allow: Collection[str] = ()) -> list[Finding]:
    """Return what is wrong or odd; a finding of an allowed check is kept as a warning.

    Checks of the voxels are skipped when the grids do not even agree in shape or the label has foreign values.

    Raises
    ------
    InputError
        If `allow` names a check that there is not, or one that cannot be taken off.
    """
    check_names(allow)
    findings: list[Finding] = []
    for check in CHECKS:
        if any(finding.check == check.unless for finding in findings):
            continue
        found = [Finding(check.name, text, check.refuses and check.name not in allow) for text in check.run(case)]
        findings += found
        if found and not check.allowable:
            break  # the checks that follow would trip over it
    return findings


def check_names(allow: Collection[str]) -> None:
    """Refuse names that `--allow` cannot take off.

    Raises
    ------
    InputError
        If there is such a name; the message lists the others.
    """
    allowed = [check.name for check in CHECKS if check.allowable and check.refuses]
    for name in allow:
        if name not in allowed:
            raise InputError(
                f"--allow {name!r}: no such check, or one that cannot be taken off; allowed: {', '.join(allowed)}"
            )

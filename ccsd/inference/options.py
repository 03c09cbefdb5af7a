"""How to segment: the options of a call, and how they are combined with the models."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccsd.errors import UsageError
from ccsd.inference.calibrated import read_calibration, unlike
from ccsd.inference.ensemble import Ensemble
from ccsd.inference.record import FORMAT
from ccsd.records import Calibration
from preprocess.checks import check_names
from preprocess.task import LabelConvention, Task

if TYPE_CHECKING:
    import torch

    from ccsd.config import Evaluation


@dataclass(frozen=True)
class Options:
    """How to predict."""

    subset: str | None = None
    """Combination to use; None uses every available sequence."""
    labels: str = "auto"
    """Label convention of the output; `auto` is that of the input's layout."""
    probabilities: bool = False
    """Also write the regions' probabilities."""
    preview: bool = False
    """Also write a picture."""
    flips: bool = False
    """Average over the 8 mirror images."""
    overlap: float | None = None
    """Share of a window that overlaps its neighbour, in [0, 1); None takes that of the evaluation."""
    cleanup: bool = False
    """Apply the clean-up of the task."""
    layout: str | None = None
    """Layout of the input; None detects it."""
    allow: tuple[str, ...] = ()
    """Names of checks that do not reject a case."""
    skip_existing: bool = False
    """Skip cases that were already segmented with the same model and options."""
    device: str | None = None
    """auto or cpu, as in `ccsd.device.choose_device`."""
    part: tuple[int, int] = (1, 1)
    """(I, N): segment part I of N of the cases, I from 1."""

    def check(self, task: Task) -> None:
        """Reject invalid options.

        Raises
        ------
        UsageError
            If the overlap is out of range, or the task has no such label convention.
        InputError
            If a check is unknown or cannot be disabled.
        """
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise UsageError(f"--overlap {self.overlap:g}: must be at least 0 and below 1, for example 0.25")
        if self.labels != "auto" and self.labels not in task.conventions:
            raise UsageError(f"--labels {self.labels}: unknown; allowed: auto, {', '.join(task.conventions)}")
        check_names(self.allow)


@dataclass(frozen=True)
class Job:
    """Models on their device, with the options of a call."""

    ensemble: Ensemble
    device: "torch.device"
    options: Options
    settings: "Evaluation"
    """Evaluation settings of the (first) model, changed by the options."""
    made: dict[str, Any]
    """What determines the segmentations of all cases, for their records."""
    calibration: Calibration | None = None
    """That of the models, if there is one and it applies to these options."""
    note: str = ""
    """Why a calibration is not used."""

    @classmethod
    def of(cls, ensemble: Ensemble, device: "torch.device", options: Options) -> "Job":
        """Combine models and options."""
        settings = ensemble.settings.model_copy(update={"flips": options.flips})
        if options.overlap is not None:
            settings = settings.model_copy(update={"overlap": options.overlap})
        wanted = {  # the keys of OptionsRecord
            "modalities": options.subset and ensemble.task.subset_name(options.subset),
            "labels": options.labels,
            "probabilities": options.probabilities,
            "flips": options.flips,
            "overlap": settings.overlap,
            "cleanup": options.cleanup,
            "layout": options.layout,
            "allow": sorted(options.allow),
        }
        models = [identity.model_dump(exclude_unset=True) for identity in ensemble.identities]
        calibration, note = read_calibration(ensemble.members), ""
        if calibration and (other := unlike(calibration, settings, cleanup=options.cleanup)):
            calibration, note = None, f"no expected Dice: the models were calibrated with other settings ({other})"
        made = {"format": FORMAT, "models": models, "options": wanted}
        return cls(ensemble, device, options, settings, made, calibration, note)

    def convention(self, of_input: LabelConvention) -> LabelConvention:
        """Return the label convention to write, given that of the input."""
        task = self.ensemble.task
        return (
            task.output_convention(of_input) if self.options.labels == "auto" else task.convention(self.options.labels)
        )

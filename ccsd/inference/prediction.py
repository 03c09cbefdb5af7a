"""The prediction for one case: label map, probabilities and measurements, and how they are written."""

import math
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccsd import __version__
from ccsd.inference.calibrated import DOUBT, expectations
from ccsd.inference.case import in_mm, is_resampled, segment_case
from ccsd.inference.finished import preview_file, probabilities_file, read_record, record_file
from ccsd.inference.measure import MeasuredLesion, measure_lesions
from ccsd.inference.options import Job
from ccsd.inference.record import ExpectedDiceRecord, InputRecord, PredictionRecord
from ccsd.inference.sanity import oddities, outside_the_brain
from ccsd.metrics import clean_up
from ccsd.records import ExpectedDice
from preprocess.case import Prepared, region_volumes
from preprocess.files import complete_or_absent, write_text
from preprocess.source import nifti
from preprocess.source.geometry import to_source
from preprocess.source.labels import to_convention
from preprocess.task import LabelConvention, Subset, Task

_RESAMPLED = "were resampled to the training's"


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for one case. Arrays have the axes and the shape X x Y x Z of the input, and are read-only."""

    used: Subset
    """The sequences that were used, in the order of the task."""
    missing: Subset
    """The other sequences of the task."""
    warnings: tuple[str, ...]
    """What a person should check before trusting it."""
    convention: LabelConvention
    """What the numbers in `labels` mean."""
    confidence: dict[str, float | None] = field(repr=False)
    """By region, the Dice estimated from the models' own probabilities; None where nothing is segmented."""
    expected_dice: dict[str, ExpectedDice]
    """By region, the Dice of validation cases with such confidence; empty if the models are not calibrated."""
    _case: Prepared = field(repr=False)
    _classes: NDArray[np.uint8] = field(repr=False)
    _regions: NDArray[np.float32] = field(repr=False)
    _outside: float = field(repr=False)
    _made: Mapping[str, Any] = field(repr=False)

    @property
    def task(self) -> Task:
        """The task: sequences, classes, regions, label conventions."""
        return self._case.meta.task

    @property
    def affine(self) -> NDArray[np.float64]:
        """4 x 4, from voxel indices to millimetres, R A S."""
        return self._case.meta.geometry.matrix

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """The label map, X x Y x Z; `label_names` gives the meaning of each number."""
        return _read_only(to_source(to_convention(self._classes, self.convention), self._case.meta.geometry))

    @property
    def label_names(self) -> dict[int, str]:
        """The class of each number in the label map; 0 is background."""
        return {number: self.convention.names[number] for number in sorted(self.convention.values)}

    @cached_property
    def probabilities(self) -> dict[str, NDArray[np.float32]]:
        """X x Y x Z by region, 0 to 1; 0 outside the brain that the sequences show."""
        geometry = self._case.meta.geometry
        return {
            region: _read_only(to_source(part, geometry))
            for region, part in zip(self.task.regions, self._regions, strict=True)
        }

    @cached_property
    def volumes_ml(self) -> dict[str, float]:
        """Millilitres by region."""
        return region_volumes(self._classes, self._case.meta.geometry, self.task)

    @property
    def volumes_mm3(self) -> dict[str, float]:
        """Cubic millimetres by region."""
        return {region: 1000 * volume for region, volume in self.volumes_ml.items()}

    @cached_property
    def lesions(self) -> dict[str, tuple[MeasuredLesion, ...]]:
        """The lesions of each region, the largest first."""
        return measure_lesions(self._classes, self._case.meta.geometry, self.task)

    def save(self, path: Path | str, *, probabilities: bool = False, preview: bool = False) -> None:
        """Write the label map, and beside it the record `CASE.json`.

        All files are written elsewhere first, and the label map is put in place last. If there is one, the files
        beside it belong to it, whatever happened during writing.

        Parameters
        ----------
        path
            NIfTI file to write, such as `CASE.nii.gz`.
        probabilities
            Also write `CASE_probabilities.nii.gz`, X x Y x Z x R, the regions in the order of the task.
        preview
            Also write `CASE.png`.

        Raises
        ------
        UsageError
            If the name is not that of a NIfTI file.
        InputError
            If a file cannot be written.
        """
        path = Path(path)
        name = nifti.stem(path)
        record = record_file(path)  # rejects a wrong name before anything is computed
        written = [path.name]
        with ExitStack() as places:  # files are put in place in the opposite order
            labels = places.enter_context(complete_or_absent(path))
            self._write(labels, self.labels)
            about = places.enter_context(complete_or_absent(record))
            if probabilities:
                written.append(probabilities_file(path).name)
                volumes = np.stack(list(self.probabilities.values()), axis=-1)
                self._write(places.enter_context(complete_or_absent(probabilities_file(path))), volumes)
            if preview:
                from ccsd.inference.preview import draw_preview

                written.append(preview_file(path).name)
                picture = draw_preview(self._case, self._classes, str(name), self.used)
                places.enter_context(complete_or_absent(preview_file(path))).write_bytes(picture)
            found = self.record(str(name), written, probabilities=probabilities)
            about.write_text(found.model_dump_json(indent=2, exclude_unset=True) + "\n", encoding="utf-8")
            _remove_earlier(path, written)

    def record(self, case: str, written: Collection[str], *, probabilities: bool = False) -> PredictionRecord:
        """Return the record that `save` writes beside the label map."""
        meta = self._case.meta
        inputs = {
            name: InputRecord(file=source.file or None, sha256=source.sha256 or None, voxels_sha256=source.voxels)
            for name, source in meta.sources.items()
            if name in self.used
        }
        return PredictionRecord(
            **{**self._made, "options": {**self._made["options"], "probabilities": probabilities}},
            ccsd_version=__version__,
            case=case,
            written=tuple(written),
            inputs=inputs,
            task=self.task.label,
            used=self.used,
            missing=self.missing,
            warnings=self.warnings,
            numbering=self.convention.name,
            labels=self.label_names,
            spacing_mm=tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist()),
            outside_brain_share=self._outside,
            confidence=self.confidence,
            **_expected_record(self.expected_dice),
            volumes_mm3=self.volumes_mm3,
            volumes_ml=self.volumes_ml,
            lesions=self.lesions,
        )

    def _write(self, path: Path, array: NDArray[np.generic]) -> None:
        nifti.write(path, array, self.affine, self._case.meta.geometry.forms)


def _expected_record(expected: Mapping[str, ExpectedDice]) -> dict[str, dict[str, ExpectedDiceRecord]]:
    """Return the part of the record that only calibrated models have."""
    found = {name: ExpectedDiceRecord(**asdict(one)) for name, one in expected.items()}
    return {"expected_dice": found} if found else {}


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array as read-only, so that what is written is what the record and the volumes describe."""
    array.flags.writeable = False
    return array


def segment(job: Job, case: Prepared, files: Mapping[str, Any]) -> Prediction:
    """Segment a case from the sequences that it was prepared with.

    Parameters
    ----------
    job
        The models and how to use them.
    case
        Files or arrays, read, checked and normalised.
    files
        Which file is which sequence, for the record.

    Raises
    ------
    UsageError
        As `ccsd.inference.case.segment_case`.
    """
    task, geometry, used = job.ensemble.task, case.meta.geometry, case.meta.modalities
    (found,) = segment_case(job.ensemble, case.image, geometry.spacing, [used], job.settings, job.device)
    classes = found.labels.cpu().numpy()
    if job.options.cleanup:
        classes = clean_up(classes, geometry.spacing, task)
    notes = [str(finding) for finding in case.findings if finding.check != "spacing"]  # resolved by resampling
    notes += [*oddities(case), *outside_the_brain(outside := float(found.outside))]
    if resampled := is_resampled(job.ensemble, geometry.spacing):
        own, training = in_mm(geometry.spacing), in_mm(job.ensemble.spacing)
        notes.append(f"voxels of {own} {_RESAMPLED} {training} and back")
    missing = tuple(name for name in task.modalities if name not in used)
    regions, convention = found.probabilities.cpu().numpy(), job.convention(case.meta.label_convention)
    made = {**job.made, "files": files}
    sure = dict(zip(task.regions, found.confidence.tolist(), strict=True))
    expected, doubts = expectations(job.calibration, len(used), sure, resampled=resampled)
    shown = {region: None if math.isnan(value) else value for region, value in sure.items()}
    return Prediction(
        used, missing, (*notes, *doubts), convention, shown, expected,
        _case=case, _classes=classes, _regions=regions, _outside=outside, _made=made,
    )  # fmt: skip


def update_expected_dice(path: Path, job: Job) -> None:
    """Update the expected Dice in the record of an existing segmentation, as the calibration may be newer.

    A record without confidence, from an earlier version, is left as it is; so are all records without a calibration.

    Raises
    ------
    InputError
        If the record cannot be written.
    """
    if job.calibration is None or (record := read_record(path)) is None or not record.confidence:
        return
    sure = {name: math.nan if value is None else value for name, value in record.confidence.items()}
    resampled = any(_RESAMPLED in warning for warning in record.warnings)
    expected, doubts = expectations(job.calibration, len(record.used), sure, resampled=resampled)
    kept = [warning for warning in record.warnings if not warning.startswith(DOUBT)]
    earlier: dict[str, Any] = {"expected_dice": {}} if record.expected_dice else {}
    renewed = record.model_copy(update={**earlier, **_expected_record(expected), "warnings": (*kept, *doubts)})
    if renewed != record:
        write_text(record_file(path), renewed.model_dump_json(indent=2, exclude_unset=True) + "\n")


def _remove_earlier(path: Path, written: Collection[str]) -> None:
    """Remove an earlier segmentation and the files that only it had, before the new record is put in place."""
    earlier = read_record(path)
    for other in (probabilities_file(path), preview_file(path)):
        if earlier is not None and other.name in earlier.written and other.name not in written:
            other.unlink(missing_ok=True)
    path.unlink(missing_ok=True)

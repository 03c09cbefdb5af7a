"""`ccsd predict INPUT OUT --model RUN [-m SUBSET]`: segment one case or many from whatever sequences they have."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccsd.errors import UsageError
from ccsd.evaluation.predictions import write_labels
from ccsd.inference import predict_probabilities
from ccsd.metrics import clean_enhancing, paint
from ccsd.metrics.surface import Spacing
from ccsd.prediction.inputs import choose, find_cases, output_path
from ccsd.prediction.looks import oddities
from ccsd.prediction.resample import needs_resampling, resample_image, resample_probabilities, target_shape
from preprocess import nifti
from preprocess.errors import InputError
from preprocess.files import remove, sync
from preprocess.geometry import Geometry, to_source
from preprocess.labels import CONVENTIONS
from preprocess.layouts import CaseFiles
from preprocess.modalities import REGIONS, Subset
from preprocess.prepare import prepare

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ccsd.model import Run

TRAINING_SPACING: Spacing = (1.0, 1.0, 1.0)
"""Of every released BraTS data set, in mm."""


@dataclass(frozen=True)
class Options:
    """How to predict."""

    subset: str | None = None
    """Combination to use; None uses every sequence that is there."""
    labels: str = "auto"
    """Label convention of the output; `auto` is that of the input's layout."""
    probabilities: bool = False
    """Also write the regions' probabilities."""
    flips: bool = False
    """Average over the 8 mirror images."""
    min_enhancing: int = 0
    """ET of fewer voxels becomes NCR."""
    skip_existing: bool = False
    """Leave cases alone whose segmentation is already there."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    case: str
    path: Path
    used: Subset = ()
    missing: Subset = ()
    warnings: tuple[str, ...] = ()
    volumes_ml: tuple[float, ...] = ()
    """Of WT, TC and ET."""
    error: str | None = None
    skipped: bool = False


def predict(source: Path, out: Path, model: Path, options: Options | None = None) -> Iterator[Outcome]:
    """Segment the case or the cases in a folder and yield what became of each.

    A case that cannot be read does not stop the others; its outcome has an error and nothing is written for it.

    Parameters
    ----------
    source
        Folder of a case, or a folder with such folders, in any layout and naming.
    out
        File (one case) or folder (`CASE.nii.gz` each) to write.
    model
        Folder of a finished training run.
    options
        See `Options`.

    Raises
    ------
    UsageError
        If the model or an option cannot be used, or no case is there.
    """
    import torch

    from ccsd.model import load_run

    options = options or Options()
    if options.labels != "auto" and options.labels not in CONVENTIONS:
        raise UsageError(f"--labels {options.labels}: unknown; allowed: auto, {', '.join(CONVENTIONS)}")
    cases = find_cases(source)
    targets = [output_path(out, case.case, cases) for case in cases]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = load_run(model, device)
    for case, path in zip(cases, targets, strict=True):
        if options.skip_existing and path.is_file():
            yield Outcome(case.case, path, skipped=True)
            continue
        try:
            yield _predict_case(case, path, run, device, options)
        except (InputError, UsageError) as error:
            yield Outcome(case.case, path, error=str(error))


def _predict_case(case: CaseFiles, path: Path, run: "Run", device: "torch.device", options: Options) -> Outcome:
    used, missing = choose(case, options.subset)
    prepared = prepare(case, used)
    geometry = prepared.geometry
    probabilities, resampled = _probabilities(prepared.image, geometry.spacing, used, run, device, options.flips)
    labels = clean_enhancing(paint(probabilities), options.min_enhancing)
    convention = prepared.label_convention if options.labels == "auto" else CONVENTIONS[options.labels]
    if options.probabilities:
        _write_probabilities(path, probabilities, geometry)
    write_labels(path, labels, geometry, convention)
    notes = [str(finding) for finding in prepared.warnings] + list(oddities(prepared))
    if resampled:
        notes.append(
            f"voxels of {_mm(geometry.spacing)} were resampled to the training's {_mm(TRAINING_SPACING)} and back"
        )
    voxel_ml = float(np.prod(geometry.spacing)) / 1000
    volumes = tuple(float(np.isin(labels, classes).sum() * voxel_ml) for classes in REGIONS.values())
    return Outcome(case.case, path, used, missing, tuple(notes), volumes)


def _probabilities(
    image: np.ndarray, spacing: Spacing, used: Subset, run: "Run", device: "torch.device", flips: bool
) -> tuple[np.ndarray, bool]:
    """Return 3 x D x H x W on the case's own grid, and whether it had to be resampled."""
    import torch

    tensor: Tensor = torch.from_numpy(image).to(device)
    shape = tuple(tensor.shape[1:])
    resample = needs_resampling(spacing, TRAINING_SPACING)
    if resample:
        tensor = resample_image(tensor, target_shape(shape, spacing, TRAINING_SPACING))
    found = predict_probabilities(
        run.net,
        tensor,
        [used],
        patch=run.config.train.patch,
        overlap=run.config.evaluation.overlap,
        flips=flips,
        autocast=run.config.train.precision == "bf16",
    )[0]
    if resample:
        found = resample_probabilities(found, shape)
    return found.cpu().numpy(), resample


def _write_probabilities(path: Path, probabilities: np.ndarray, geometry: Geometry) -> None:
    """Write X x Y x Z x 3 (WT, TC, ET) beside the segmentation, whole or not at all."""
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    target = path.with_name(f"{name}_probabilities.nii.gz")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}.tmp.{target.name}")
    try:
        volumes = np.stack([to_source(region, geometry) for region in probabilities], axis=-1)
        nifti.write(temporary, volumes, geometry.matrix)
        sync(temporary)
        temporary.replace(target)
    finally:
        remove(temporary)


def _mm(spacing: Spacing) -> str:
    return " x ".join(f"{side:g}" for side in reversed(spacing)) + " mm"

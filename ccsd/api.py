"""The Python API: `ccsd.load_model`, `Model.predict`, `ccsd.score`. It is stable; see docs/how-to/python.md."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import FileBasedImage
from nibabel.spatialimages import SpatialImage
from numpy.typing import ArrayLike, NDArray

from ccsd.config import Evaluation
from ccsd.config.load import evaluation_settings
from ccsd.device import choose_device
from ccsd.errors import UsageError
from ccsd.evaluation.segmentations import case_name
from ccsd.inference.ensemble import load_ensemble, read_members
from ccsd.inference.finished import taken_for
from ccsd.inference.labelmaps import LabelMap, check_same_grid, labelmap_of_array, read_labelmap
from ccsd.inference.measure import MeasuredLesion
from ccsd.inference.options import Job, Options
from ccsd.inference.prediction import Prediction, segment
from ccsd.metrics import Reference
from ccsd.metrics.policy import policy_of
from preprocess.case import prepare_loaded
from preprocess.errors import InputError
from preprocess.source.labels import whole_numbers
from preprocess.source.layouts import CaseFiles, survey
from preprocess.source.layouts.layout import numberings_of
from preprocess.source.load import Loaded, read_volume, with_three_axes
from preprocess.source.nifti import Forms, Volume, scaled
from preprocess.task import DEFAULT_TASK, LabelConvention, Task, read_task

__all__ = ["Image", "InputError", "MeasuredLesion", "Model", "Prediction", "UsageError", "load_model", "score"]

Image = str | os.PathLike[str] | FileBasedImage | tuple[ArrayLike, ArrayLike]
"""A volume: path of a NIfTI file, an image of nibabel, or voxels X x Y x Z with their 4 x 4 affine (mm, R A S)."""
_AFFINE, _LAST_ROW = (4, 4), (0, 0, 0, 1)
_REAL = "iuf"


class Model:
    """One trained model, or several whose probabilities are averaged, on their device."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def task(self) -> Task:
        """The task: sequences, classes, regions, label conventions."""
        return self._job.ensemble.task

    @property
    def sequences(self) -> tuple[str, ...]:
        """Names of the sequences that it uses; any of them may be missing."""
        return self.task.modalities

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the regions that it segments."""
        return tuple(self.task.regions)

    def predict(
        self,
        images: Mapping[str, Image],
        *,
        labels: str = "auto",
        flips: bool = False,
        overlap: float | None = None,
        cleanup: bool = False,
        allow: Collection[str] = (),
    ) -> Prediction:
        """Segment one case; the numbers are those of `ccsd predict`.

        Parameters
        ----------
        images
            One or more images by sequence (`flair`, `t1`, `t1ce`, `t2` for glioma, or another name such as `t2f`):
            skull-stripped, with background 0, registered to one another on one grid. They are not modified.
        labels
            Label convention of the result. `auto`: the one that the file names imply, as those of BraTS do; otherwise,
            and for arrays, the first one of the task.
        flips, overlap, cleanup, allow
            As in the options of `ccsd predict`.

        Raises
        ------
        UsageError
            If there is no image, a sequence is given twice, something is not an image, or an option cannot be used.
        InputError
            If a sequence is unknown, an image cannot be read or used, or they do not fit together.
        """
        options = Options(labels=labels, flips=flips, overlap=overlap, cleanup=cleanup, allow=tuple(allow))
        options.check(self.task)
        case = _loaded(_by_sequence(images, self.task), self.task)
        job = Job.of(self._job.ensemble, self._job.device, options)
        return segment(job, prepare_loaded(case, options.allow), _record_of(case.files))


def load_model(model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], device: str | None = None) -> Model:
    """Load a trained model, or several as one, as `--model` does.

    Parameters
    ----------
    model
        What `--model` takes: the folder of a finished training run, a packed file, a name such as `phantom`, or a URL.
        With several, the mean of their probabilities is used.
    device
        `auto` (the GPU, if there is one) or `cpu`; by default the environment variable `CCSD_DEVICE`, or else `auto`.

    Raises
    ------
    UsageError
        If a model or the device cannot be used, or models do not fit together.
    """
    named = [model] if isinstance(model, str | os.PathLike) else list(model)
    if not named:
        raise UsageError(
            "load_model: no model given; give a finished training run, a packed file or a name, or several"
        )
    members = read_members([path if isinstance(path, str) else Path(path) for path in named])
    chosen = choose_device(device or os.environ.get("CCSD_DEVICE"))
    return Model(Job.of(load_ensemble(members, chosen), chosen, Options()))


def score(
    pred: Prediction | Image,
    ref: Image,
    task: Task | str | os.PathLike[str] | None = None,
    *,
    pred_labels: str | None = None,
    ref_labels: str | None = None,
    **settings: float | str | bool,
) -> dict[str, dict[str, float | int | str]]:
    """Score a segmentation against a reference; the numbers are those of `ccsd evaluate --pred --ref`.

    Parameters
    ----------
    pred
        A prediction, or a label map.
    ref
        A label map on the same grid.
    task
        The task: an object, its name, or a YAML file. By default that of the prediction, or else `brats-gli-pre`.
    pred_labels, ref_labels
        What the numbers mean: a label convention of the task. It is required for the reference, unless the file's name
        implies it. That of a `Prediction` is known; another `pred` without one is read with that of the reference.
    **settings
        Settings of the section `evaluation` of the configuration: `both_empty`, `hd95_penalty`, `cleanup`.

    Returns
    -------
    dict
        By region the columns of metrics.tsv (docs/reference/metrics.md): `dice`, `hd95` in mm, `nsd` and others.

    Raises
    ------
    UsageError
        If the label convention or a setting is unknown, the grids differ, or the prediction belongs to another task.
    InputError
        If a label map cannot be read or has values that its convention lacks, or if there is no such task.
    """
    task = _task(task, pred, ref)
    chosen = evaluation_settings(
        Evaluation(), [f"evaluation.{key}={json.dumps(v)}" for key, v in settings.items()], task
    )
    convention = _convention(ref, "ref_labels", ref_labels, task)
    if convention is None:
        raise UsageError(
            f"ref_labels: nothing shows what the reference's numbers mean; choose one of {', '.join(task.conventions)}"
        )
    expected = _labelmap(ref, "reference", convention)
    predicted = _labelmap(pred, "prediction", _convention(pred, "pred_labels", pred_labels, task) or convention)
    check_same_grid(predicted, expected, ignore_place=False)
    reference = Reference(expected.labels, expected.spacing, policy_of(chosen), task)
    rows = reference.score(predicted.labels, cleanup=chosen.cleanup)
    return {str(row["region"]): {name: value for name, value in row.items() if name != "region"} for row in rows}


def _by_sequence(images: Mapping[str, Image], task: Task) -> dict[str, Image]:
    """Return the images by the task's names of their sequences, in the order of the task."""
    if not isinstance(images, Mapping) or not all(isinstance(name, str) for name in images):
        raise UsageError(
            f"images: got {type(images).__name__}; give a mapping such as {{'{task.modalities[0]}': path}}"
        )
    found: dict[str, Image] = {}
    spelled: dict[str, str] = {}
    for name, image in images.items():
        ours = task.modality(name)
        if ours in found:
            raise UsageError(f"{spelled[ours]!r} and {name!r} are the same sequence {ours}; give it once")
        found[ours], spelled[ours] = image, name
    if not found:
        raise UsageError(f"no image; give at least one of {', '.join(task.modalities)}")
    return {name: found[name] for name in task.modalities if name in found}


def _loaded(images: Mapping[str, Image], task: Task) -> Loaded:
    volumes = {name: _volume(image, name) for name, image in images.items()}
    files = CaseFiles("images", task, {name: _path(image) or Path() for name, image in images.items()})
    paths = [path for image in images.values() if (path := _path(image))]
    known = {(case.numbering, case.declared) for case in survey(paths, task).cases} if paths else set()
    if len(known) == 1:
        numbering, declared = known.pop()
        files = replace(files, numbering=numbering, declared=declared)
    return Loaded(files, volumes, None, files.convention, {})


def _record_of(files: CaseFiles) -> dict[str, Any]:
    """Return the entry of the record about the files; an image in memory has no name."""
    named = taken_for(replace(files, images={m: path for m, path in files.images.items() if path.name}))
    return {**named, "images": {m: named["images"].get(m, "") for m in files.images}}


def _path(image: object) -> Path | None:
    return Path(image) if isinstance(image, str | os.PathLike) else None


def _volume(image: Image, what: str) -> Volume:
    """Return the volume of a path, of a nibabel image, or of voxels and an affine."""
    if path := _path(image):
        return read_volume(path)
    if isinstance(image, SpatialImage):
        try:
            voxels = _stored(image)
        except (OSError, ValueError, EOFError) as error:  # a file that is damaged, or closed
            raise InputError(f"{what}: the voxels of the image cannot be read: {error}") from None
        return _checked(voxels, image.affine, what, getattr(image, "header", None))
    if isinstance(image, tuple | list) and len(image) == 2:  # noqa: PLR2004 - voxels and affine
        return _checked(np.asarray(image[0]), image[1], what)
    raise UsageError(
        f"{what}: got {type(image).__name__}; expected a path, a nibabel image, or voxels and their affine"
    )


def _stored(image: SpatialImage) -> NDArray[Any]:
    """Return the voxels as if read from the file: stored values, scaled in float32 where the header requires it."""
    proxy: Any = image.dataobj
    if nib.is_proxy(proxy) and hasattr(proxy, "get_unscaled") and np.ndim(proxy.slope) == np.ndim(proxy.inter) == 0:
        return scaled(np.asarray(proxy.get_unscaled()), float(proxy.slope), float(proxy.inter))
    return np.asarray(proxy)


def _checked(array: NDArray[Any], affine: ArrayLike | None, what: str, header: object = None) -> Volume:
    try:
        matrix = np.asarray(affine, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != _AFFINE or not np.array_equal(matrix[3], _LAST_ROW):
        raise InputError(
            f"{what}: the affine must be 4 x 4 numbers, from voxel indices to mm, the last row 0, 0, 0, 1; got "
            f"{affine!r:.80}"
        )
    if array.dtype.kind not in _REAL:
        raise InputError(f"{what}: holds {array.dtype} voxels; expected whole or real numbers")
    forms = Forms.same(matrix)
    if isinstance(header, nib.Nifti1Header) and np.allclose(header.get_best_affine(), matrix):
        forms = Forms.of(header)
    return with_three_axes(Volume(scaled(array, None, None), matrix, forms, ""), what)


def _task(named: Task | str | os.PathLike[str] | None, *images: object) -> Task:
    """Return the task to score; predictions must have its classes, or their numbers would mean something else."""
    of_models = [image.task for image in images if isinstance(image, Prediction)]
    if named is None:
        task = of_models[0] if of_models else read_task(DEFAULT_TASK)
    else:
        task = named if isinstance(named, Task) else read_task(os.fspath(named))
    for other in of_models:
        if other.classes != task.classes:
            raise UsageError(
                f"a prediction of the task {other.name} cannot be scored with the task {task.name}: the classes differ"
            )
    return task


def _convention(image: object, option: str, named: str | None, task: Task) -> LabelConvention | None:
    """Return the label convention: the one named, that of a prediction, or that implied by a file's name; else None."""
    if named is not None:
        if named not in task.conventions:
            raise UsageError(f"{option}={named!r}: unknown label convention; allowed: {', '.join(task.conventions)}")
        return task.conventions[named]
    if isinstance(image, Prediction):
        return image.convention
    path = _path(image)
    known = numberings_of(case_name(path, task) or "") if path else set()
    return task.conventions.get(str(known.pop())) if len(known) == 1 else None


def _labelmap(image: Prediction | Image, what: str, convention: LabelConvention) -> LabelMap:
    if path := _path(image):
        return read_labelmap(path, convention)
    volume = _volume((image.labels, image.affine) if isinstance(image, Prediction) else image, what)
    return labelmap_of_array(Path(what), replace(volume, array=whole_numbers(volume.array)), convention)

"""`ccsd calibrate RUN...`: measure on validation cases how the models' confidence relates to the actual Dice."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccsd import __version__
from ccsd.config import Evaluation
from ccsd.config.load import evaluation_settings
from ccsd.device import choose_device
from ccsd.errors import UsageError
from ccsd.evaluation.fit import fewest_patients, fit
from ccsd.inference.calibrated import calibration_file, decisive
from ccsd.inference.case import is_resampled, segment_case
from ccsd.inference.ensemble import Ensemble, Member, hash_of, load_ensemble, read_members
from ccsd.metrics.regions import region_mask
from ccsd.records import Calibration, Curve
from ccsd.study import StudyFolder
from preprocess.dataset import content_hash, data_task, find_patients, kept_patients, read_fingerprint
from preprocess.errors import InputError, first_few
from preprocess.files import write_text
from preprocess.parallel import track
from preprocess.splits import FILE as SPLIT_FILE
from preprocess.splits import Split, read_split, text_hash
from preprocess.store.reader import CaseStore, list_cases
from preprocess.task import reject_mixture

if TYPE_CHECKING:
    import torch

LEVEL = 0.9
"""Share of new cases whose Dice should lie in the interval."""


@dataclass(frozen=True)
class Point:
    """Confidence and actual Dice of one region of a case, segmented from one combination."""

    case: str
    subset: str
    sequences: int
    region: str
    confidence: float
    dice: float


@dataclass(frozen=True)
class Calibrated:
    """A calibration that was written."""

    path: Path
    calibration: Calibration
    notes: tuple[str, ...]
    """Notes for the user."""


def calibrate(
    models: Path | str | Sequence[Path | str],
    data: Path | None = None,
    overrides: Sequence[str] = (),
    device: str | None = None,
    level: float = LEVEL,
) -> Calibrated:
    """Segment the validation cases of runs from every combination, and write how confidence relates to Dice.

    Parameters
    ----------
    models
        Folder of a finished run. With several, the mean of their probabilities is calibrated.
    data
        The converted data set that they were trained on; by default that of their study.
    overrides
        `evaluation.KEY=VALUE` settings that replace those of the (first) run.
    device
        auto or cpu, as in `ccsd.device.choose_device`.
    level
        Share of new cases whose Dice should lie in the interval.

    Raises
    ------
    UsageError
        If a run cannot be used, is packed, or lacks its split; if there is no validation case; or if `level` or the
        data cannot be used.
    InputError
        If the data belong to another task, or lack a case.
    """
    if not 0 < level < 1:
        raise UsageError(f"--level {level:g}: must be between 0 and 1, for example 0.9")
    members = read_members(models)
    path = calibration_file(members)
    if path is None:
        raise UsageError(
            f"{members[0].where}: a packed model does not list the cases it was trained on; calibrate the run and pack "
            "it again"
        )
    data = data or _data_of(members)
    patients = cases_to_calibrate(members, data)
    settings = evaluation_settings(members[0].config.evaluation, overrides, members[0].config.task)
    stores = [CaseStore(data, case) for case in patients]
    ensemble = load_ensemble(members, chosen := choose_device(device))
    resampled = any(is_resampled(ensemble, store.meta.geometry.spacing) for store in stores)
    work = track(stores, len(stores), "calibrating")
    found = [point for store in work for point in points(ensemble, store, settings, chosen)]
    calibration = fitted(found, patients, members, settings, level).model_copy(update={"resampled": resampled})
    write_text(path, calibration.model_dump_json(indent=2) + "\n")
    return Calibrated(path, calibration, tuple(_notes(calibration, members)))


def cases_to_calibrate(members: Sequence[Member], data: Path) -> dict[str, str]:
    """Return the validation cases with their patients, except patients with any scan used for training or testing.

    Raises
    ------
    UsageError
        If a run lacks its split, there is no such case, or the data are not those of the training.
    InputError
        If the data belong to another task, or lack a case.
    """
    first = members[0]
    reject_mixture([(first.where, first.config.task), (str(data), data_task(data))])
    splits = [_split_of(member, data) for member in members]
    val = {case for split in splits for case in split.val}
    known = {case for split in splits for case in (*split.train, *split.test)}
    whose = find_patients({case: CaseStore(data, case).meta for case in list_cases(data)}, kept_patients(data))
    if absent := sorted(val - whose.keys()):
        raise InputError(f"{data}: converted cases are missing: {first_few(absent)}; create them with `ccsd convert`")
    used = {patient for case, patient in whose.items() if case in known}
    found = {case: whose[case] for case in sorted(val - known) if whose[case] not in used}
    if not val:
        raise UsageError(
            f"{first.where}: its split has no validation case; create one that has some (split.val) and train again"
        )
    if not found:
        raise UsageError(
            f"{first.where}: every patient with a validation case has another scan that is used for training or "
            "testing; create a split that keeps patients together, and do not calibrate models of several folds "
            "together"
        )
    return found


def _split_of(member: Member, data: Path) -> Split:
    """Return the split that a run was trained with; reject data that are not those of its training."""
    folder = member.saved.folder
    if folder is None or not (folder / SPLIT_FILE).is_file():
        raise UsageError(f"{member.where}: {SPLIT_FILE} is missing, so its training cases are unknown; train again")
    split = read_split(folder)
    if own := member.record.content_hash:
        is_same = own == content_hash(data, (*split.train, *split.val))
    else:
        is_same = member.record.data_hash == read_fingerprint(data).get("data_hash")
    if not is_same:
        raise UsageError(
            f"{data}: not the data that {member.where} was trained on; choose those with --data, or train again"
        )
    return split


def points(ensemble: Ensemble, store: CaseStore, settings: Evaluation, device: "torch.device") -> Iterator[Point]:
    """Yield confidence and Dice for each combination that a case has, by region; unpainted regions are left out.

    Raises
    ------
    UsageError
        If the case has no segmentation.
    """
    task = ensemble.task
    if not store.has_label:
        raise UsageError(f"case {store.case}: has no segmentation to compare with; remove it from the split")
    subsets = [s for s in map(task.subset, task.subset_names) if set(s) <= set(store.modalities)]
    reference = store.read_label()
    expected = {region: region_mask(reference, region, task) for region in task.regions}
    image = store.read_channels({name for subset in subsets for name in subset})
    found = segment_case(ensemble, image, store.meta.geometry.spacing, subsets, settings, device)
    for subset, one in zip(subsets, found, strict=True):
        labels = one.labels.cpu().numpy()
        for region, sure in zip(task.regions, one.confidence.tolist(), strict=True):
            mask, other = region_mask(labels, region, task), expected[region]
            if (voxels := np.count_nonzero(mask)) and not np.isnan(sure):
                dice = 2 * np.count_nonzero(mask & other) / (voxels + np.count_nonzero(other))
                yield Point(store.case, "+".join(subset), len(subset), region, sure, float(dice))


def fitted(
    found: Sequence[Point], patients: Mapping[str, str], members: Sequence[Member], settings: Evaluation, level: float
) -> Calibration:
    """Return the calibration fitted to points: one curve for each region and number of sequences.

    `patients` maps each case to its patient.
    """
    by_curve: dict[tuple[str, int], list[Point]] = defaultdict(list)
    for point in found:
        by_curve[point.region, point.sequences].append(point)
    curves = []
    for (region, sequences), own in sorted(by_curve.items(), key=lambda item: item[0][1]):
        sure, dice = (np.array([getattr(point, name) for point in own]) for name in ("confidence", "dice"))
        patient = np.array([patients[point.case] for point in own])
        curves.append(Curve(region=region, sequences=sequences, **fit(patient, sure, dice, level)))
    splits = sorted({member.record.split_hash for member in members})
    cases = {point.case for point in found}
    return Calibration(
        format=1,
        model_hash=hash_of(members),
        split_hash=splits[0] if len(splits) == 1 else text_hash("\n".join(splits)),
        data_hash=members[0].record.data_hash,
        task=members[0].config.task.label,
        level=level,
        cases=len(cases),
        patients=len({patients[case] for case in cases}),
        settings=decisive(settings),
        versions={"ccsd": __version__},
        curves=tuple(curves),
    )


def _data_of(members: Sequence[Member]) -> Path:
    """Return the data of the study that the first run belongs to."""
    folder = members[0].saved.folder
    assert folder is not None
    runs = folder.resolve().parent
    data = StudyFolder(runs.parent).data
    if runs.name != "runs" or not data.is_dir():
        raise UsageError(f"{folder}: not in the folder of a study with its data; choose the data with --data")
    return data


def _notes(calibration: Calibration, members: Sequence[Member]) -> Iterator[str]:
    if not calibration.curves:
        yield f"{members[0].where}: segments nothing in any validation case, so there will be no expected Dice"
    needed, sizes = fewest_patients(calibration.level), {curve.sequences for curve in calibration.curves}
    seen = {(curve.region, curve.sequences): curve.patients for curve in calibration.curves}
    all_of = {(name, size): seen.get((name, size), 0) for name in members[0].config.task.regions for size in sizes}
    if few := [f"{name} from {size}: {count}" for (name, size), count in all_of.items() if count < needed]:
        yield (
            f"too few patients for an interval of {100 * calibration.level:g} %, which needs {needed} in whom the "
            f"region was segmented (region from number of sequences: patients): {first_few(few, 12)}"
        )
    for member in members:
        if member.record.may_know_test_cases:
            yield (
                f"{member.where}: the model it was fine-tuned from was trained with another split of the same data; if "
                "that included these cases, the expected Dice is too high"
            )

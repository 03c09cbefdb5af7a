"""Pictures of predictions on slices of the cases they were made for."""

import base64
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ccsd.config.of_task import default_validation
from ccsd.inference.labelmaps import read_labelmap
from ccsd.report.results import StudyResults
from ccsd.report.sentences import listed
from ccsd.report.statistics import case_matrix, subset_order
from ccsd.study import prediction_file
from preprocess.errors import InputError
from preprocess.pictures import Picture, draw, png, slice_of_interest
from preprocess.store.reader import CaseStore
from preprocess.task import Task


@dataclass(frozen=True)
class Panel:
    """One picture with its caption."""

    title: str
    note: str
    png: str
    """Base64."""
    alt: str


@dataclass(frozen=True)
class Gallery:
    """Pictures of one case."""

    title: str
    case: str
    panels: list[Panel]


def galleries(study: StudyResults, experiment: str) -> list[Gallery]:
    """Return the best, median and worst case under a few combinations, and the median case under all of them.

    Cases are ranked by their mean Dice over the regions with the largest combination that was evaluated. The list is
    empty if there are no kept predictions or converted cases.
    """
    part = study.metrics[study.metrics["experiment"] == experiment]
    task = study.task
    names = [name for name in subset_order(part["subset"].unique(), task) if task.is_subset(name)]
    if not names:
        return []
    ranked = _ranked(part, names[-1], task)
    chosen = {"Best case": 0, "Median case": (len(ranked) - 1) // 2, "Worst case": len(ranked) - 1}
    few = [name for name in default_validation(task) if name in names] or names[-4:]
    found = [_gallery(study, part, f"{title}", ranked[i], few) for title, i in chosen.items() if ranked]
    if ranked:
        title = "Median case, every combination"
        found.append(_gallery(study, part, title, ranked[chosen["Median case"]], names))
    seen: set[tuple[str, int]] = set()
    kept = []
    for gallery in found:
        if gallery and (key := (gallery.case, len(gallery.panels))) not in seen:
            seen.add(key)
            kept.append(gallery)
    return kept


def _ranked(part: pd.DataFrame, name: str, task: Task) -> list[str]:
    """Return the cases from the highest to the lowest mean Dice."""
    tables = [case_matrix(part[part["region"] == region], "dice", task) for region in task.scored_regions]
    scores = [table[name] for table in tables if name in table]
    mean = pd.concat(scores, axis=1).mean(axis=1).dropna()
    return [str(case) for case in mean.sort_values(ascending=False, kind="stable").index]


def _gallery(study: StudyResults, part: pd.DataFrame, title: str, case: str, names: list[str]) -> Gallery | None:
    try:
        store = CaseStore(study.folder.data, case)
        reference = store.read_label()
    except InputError:
        return None
    task = study.task
    index = slice_of_interest(reference, task)
    outline, background = reference[index], store.read_plane(store.modalities[0], index)
    panels = [_image_panel(store, name, index) for name in _images(store, task)]
    panels.append(_panel("Reference", "", draw(background, outline, outline), f"{case}: reference segmentation"))
    for name in names:
        path = _prediction(study, part, case, name)
        if path is None:
            continue
        labels = read_labelmap(path, task.output_convention(store.meta.label_convention)).labels[
            store.meta.geometry.slices
        ]
        note = _scores(part, case, name, task)
        shown = task.display_name(name)
        alt = f"{case}, prediction from {shown}; Dice of {listed(list(task.scored_regions))} {note}"
        panels.append(_panel(f"from {shown}", note, draw(background, labels[index], outline), alt))
    return Gallery(title, case, panels) if any(p.note for p in panels) else None


def _prediction(study: StudyResults, part: pd.DataFrame, case: str, name: str) -> Path | None:
    """Return a prediction of the experiment's first seed, whatever the folder of its evaluation is called."""
    first = part["seed"].min()  # an ensemble has none
    wanted = (str(part["experiment"].iloc[0]), None if pd.isna(first) else first)
    for group, folder in study.folder.evaluations().items():
        identity = study.evaluations[group].identity
        path = prediction_file(folder, name, case)
        if not identity.settings.get("keep_predictions", True):
            continue  # files there are of an earlier evaluation
        if (identity.experiment, identity.seed) == wanted and path.is_file():
            return path
    return None


def _images(store: CaseStore, task: Task) -> list[str]:
    """Return the sequences whose images are shown: the first one, and the first one that trainings validate with."""
    telling = [name for name in default_validation(task) if name in store.modalities]
    return list(dict.fromkeys([store.modalities[0], *telling]))[:2]


def _scores(part: pd.DataFrame, case: str, name: str, task: Task) -> str:
    rows = part[(part["case"] == case) & (part["subset"] == name)].groupby("region")["dice"].mean()
    return " / ".join(f"{rows[region]:.2f}" for region in task.scored_regions if region in rows)


def _image_panel(store: CaseStore, modality: str, index: int) -> Panel:
    shown = store.meta.task.sequences[modality]
    picture = draw(store.read_plane(modality, index))
    return _panel(f"{shown} image", "", picture, f"{store.case}: {shown} image, axial slice {index}")


def _panel(title: str, note: str, picture: Picture, alt: str) -> Panel:
    return Panel(title, note, base64.b64encode(png(picture)).decode(), alt)

"""Pictures of predictions on slices of the cases they were made for."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.image import imsave
from scipy import ndimage

from ccsd.inference.labelmaps import read_labels
from ccsd.report.statistics import FULL, case_matrix, subset_order
from ccsd.report.study import Study
from preprocess.errors import InputError
from preprocess.modalities import LABELS, MODALITY_NAMES, REGIONS, SUBSET_ORDER, display_name
from preprocess.store.reader import CaseStore, open_case

Picture = npt.NDArray[np.uint8]
CLASS_COLOURS = {"ED": (86, 180, 233), "NCR": (213, 94, 0), "ET": (240, 228, 66)}
"""Of the palette of Okabe and Ito, which the colour-blind can tell apart."""
FEW = (FULL, "flair+t1+t2", "t1ce", "flair")
"""Everything; without the contrast agent; the two single sequences that show most."""
OPACITY = 0.5
MIN_HEIGHT = 160


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


def galleries(study: Study, experiment: str) -> list[Gallery]:
    """Return the best, median and worst case under a few combinations, and the median under all of them.

    Cases are ranked by their mean Dice over the regions with the largest combination that was evaluated. Without
    kept predictions or converted cases there is nothing to show, and the list is empty.
    """
    part = study.metrics[study.metrics["experiment"] == experiment]
    names = [name for name in subset_order(part["subset"].unique()) if name in SUBSET_ORDER]
    if not names:
        return []
    ranked = _ranked(part, names[-1])
    chosen = {"Best case": 0, "Median case": (len(ranked) - 1) // 2, "Worst case": len(ranked) - 1}
    few = [name for name in FEW if name in names] or names[-4:]
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


def _ranked(part: pd.DataFrame, name: str) -> list[str]:
    """Return the cases from the highest to the lowest mean Dice."""
    scores = [case_matrix(part[part["region"] == region], "dice")[name] for region in REGIONS]
    mean = pd.concat(scores, axis=1).mean(axis=1).dropna()
    return [str(case) for case in mean.sort_values(ascending=False, kind="stable").index]


def _gallery(study: Study, part: pd.DataFrame, title: str, case: str, names: list[str]) -> Gallery | None:
    try:
        store = open_case(study.root / "data", case)
        reference = store.read_label()
    except InputError:
        return None
    index = _slice_of_interest(reference)
    modality = "t1ce" if "t1ce" in store.modalities else store.modalities[0]
    panels = [_image_panel(store, name, index) for name in dict.fromkeys((_background(store), modality))]
    picture = _grey(store, _background(store), index)
    outline = reference[index]
    panels.append(_panel("Reference", "", picture, outline, outline, f"{case}: reference segmentation"))
    for name in names:
        path = _prediction(study, part, case, name)
        if path is None:
            continue
        labels = read_labels(path, store.meta.geometry, store.meta.label_convention)
        note = _scores(part, case, name)
        alt = f"{case}, prediction from {display_name(name)}; Dice of WT, TC and ET {note}"
        panels.append(_panel(f"from {display_name(name)}", note, picture, labels[index], outline, alt))
    return Gallery(title, case, panels) if any(p.note for p in panels) else None


def _prediction(study: Study, part: pd.DataFrame, case: str, name: str) -> Path | None:
    """Return a prediction of the experiment, of its first seed, whatever the folder of its evaluation is called."""
    wanted = (str(part["experiment"].iloc[0]), part["seed"].min())
    for group, content in sorted(study.evaluations.items()):
        identity = content.get("identity") or {}
        path = study.root / "evaluation" / group / "predictions" / name / f"{case}.nii.gz"
        if (identity.get("experiment"), identity.get("seed")) == wanted and path.is_file():
            return path
    return None


def _scores(part: pd.DataFrame, case: str, name: str) -> str:
    rows = part[(part["case"] == case) & (part["subset"] == name)].groupby("region")["dice"].mean()
    return " / ".join(f"{rows[region]:.2f}" for region in REGIONS if region in rows)


def _slice_of_interest(reference: npt.NDArray[np.uint8]) -> int:
    """Return the axial slice with the most tumour, where a voxel of a smaller region counts more."""
    weights = sum(np.isin(reference, classes).sum(axis=(1, 2)) for classes in REGIONS.values())
    return int(np.argmax(weights)) if np.any(weights) else len(reference) // 2


def _background(store: CaseStore) -> str:
    return "flair" if "flair" in store.modalities else store.modalities[0]


def _grey(store: CaseStore, modality: str, index: int) -> Picture:
    """Return one slice as RGB, from the 1st to the 99.5th percentile of the brain."""
    _, height, width = store.shape
    slab = (slice(index, index + 1), slice(0, height), slice(0, width))
    image = store.read((modality,), slab)[0, 0]
    brain = image[image != 0]
    low, high = np.percentile(brain, [1, 99.5]) if brain.size else (0.0, 1.0)
    grey = np.where(image == 0, 0, np.clip((image - low) / max(high - low, 1e-6), 0.08, 1))
    return np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2)


def _image_panel(store: CaseStore, modality: str, index: int) -> Panel:
    picture = _grey(store, modality, index)
    nothing = np.zeros(picture.shape[:2], np.uint8)
    shown = MODALITY_NAMES[modality]
    return _panel(f"{shown} image", "", picture, nothing, nothing, f"{store.case}: {shown} image, axial slice {index}")


def _panel(
    title: str, note: str, picture: Picture, labels: npt.NDArray[Any], reference: npt.NDArray[Any], alt: str
) -> Panel:
    factor = max(1, -(-MIN_HEIGHT // picture.shape[0]))
    drawn, labels, reference = (np.repeat(np.repeat(a, factor, 0), factor, 1) for a in (picture, labels, reference))
    drawn = drawn.astype(np.float32)
    for name, colour in CLASS_COLOURS.items():
        where = labels == LABELS[name]
        drawn[where] = (1 - OPACITY) * drawn[where] + OPACITY * np.array(colour)
    tumour = reference > 0
    drawn[ndimage.binary_dilation(tumour) & ~tumour] = 255
    out = io.BytesIO()
    # Anterior up, the patient's right on the left: as radiologists look at it.
    imsave(out, drawn[::-1, ::-1].astype(np.uint8), format="png", metadata={"Software": "ccsd"})
    return Panel(title, note, base64.b64encode(out.getvalue()).decode(), alt)

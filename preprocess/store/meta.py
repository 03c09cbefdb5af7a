"""What a store says about its case: the attributes of its Zarr group."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.case import Prepared, Source
from preprocess.modalities import LABELS, MODALITIES, REGIONS
from preprocess.normalise import LARGEST, Scale
from preprocess.source.geometry import Geometry, to_canonical
from preprocess.source.labels import CONVENTIONS, LabelConvention

LAYOUT_VERSION = 1
_FOREGROUND_VOXELS = 1000


@dataclass(frozen=True)
class CaseMeta:
    """Attributes of a store.

    Attributes
    ----------
    layout
        Layout of the source, e.g. `brats2020`.
    modalities
        Those the case has, in canonical order.
    scales
        Mean and standard deviation by modality: z x std + mean gives the source's value.
    dtypes
        Voxel type of the source by modality.
    volumes
        Region volumes in millilitres (WT, TC, ET); empty without a label.
    foreground
        Up to 1000 flat voxel indices (C order of the cropped label) by class, evenly spread, for sampling.
    sources
        Files by modality, and `seg`.
    allow
        Checks that were off when the case was converted.
    warnings
        What was odd about it.
    """

    case: str
    layout: str
    modalities: tuple[str, ...]
    geometry: Geometry
    label_convention: LabelConvention
    scales: Mapping[str, Scale]
    dtypes: Mapping[str, str]
    volumes: Mapping[str, float]
    foreground: Mapping[int, tuple[int, ...]]
    sources: Mapping[str, Source]
    allow: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; `from_dict` takes it back."""
        return {
            "layout_version": LAYOUT_VERSION,
            "case": self.case,
            "layout": self.layout,
            "modalities": list(self.modalities),
            "geometry": self.geometry.as_dict(),
            "label_convention": self.label_convention.name,
            "scales": {m: asdict(scale) for m, scale in self.scales.items()},
            "dtypes": dict(self.dtypes),
            "volumes_ml": dict(self.volumes),
            "foreground": {str(number): list(voxels) for number, voxels in self.foreground.items()},
            "sources": {name: asdict(source) for name, source in self.sources.items()},
            "allow": list(self.allow),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CaseMeta":
        """Return the attributes that `as_dict` described.

        Raises
        ------
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError
            If they are not complete, of another type, or do not fit together.
        """
        meta = cls(
            case=str(values["case"]),
            layout=str(values["layout"]),
            modalities=tuple(values["modalities"]),
            geometry=Geometry.from_dict(values["geometry"]),
            label_convention=CONVENTIONS[values["label_convention"]],
            scales={m: Scale(**scale) for m, scale in values["scales"].items()},
            dtypes=dict(values["dtypes"]),
            volumes=dict(values["volumes_ml"]),
            foreground={int(number): tuple(voxels) for number, voxels in values["foreground"].items()},
            sources={name: Source(**source) for name, source in values["sources"].items()},
            allow=tuple(values["allow"]),
            warnings=tuple(values["warnings"]),
        )
        _check(meta)
        return meta


def describe(prepared: Prepared, allow: tuple[str, ...] = ()) -> CaseMeta:
    """Return the attributes of a prepared case's store."""
    return CaseMeta(
        case=prepared.case,
        layout=prepared.layout,
        modalities=prepared.available,
        geometry=prepared.geometry,
        label_convention=prepared.label_convention,
        scales=prepared.scales,
        dtypes=prepared.dtypes,
        volumes={} if prepared.label is None else _volumes(prepared.label, prepared.geometry),
        foreground={} if prepared.label is None else _foreground(prepared.label),
        sources=prepared.sources,
        allow=allow,
        warnings=tuple(str(finding) for finding in prepared.warnings),
    )


def _check(meta: CaseMeta) -> None:
    """Refuse attributes that would be found out only deep in the use of the store.

    Raises
    ------
    ValueError
        If they do not fit together.
    """
    full = to_canonical(np.broadcast_to(0, meta.geometry.shape), meta.geometry.matrix).shape
    box = meta.geometry.box
    sides = [last - first for first, last in box]
    voxels = [np.asarray(indices) for indices in meta.foreground.values()]
    scales = [meta.scales[m] for m in meta.modalities]
    fitting = {
        "modalities": bool(meta.modalities) and meta.modalities == tuple(m for m in MODALITIES if m in meta.modalities),
        "box": all(0 <= first < last <= side for (first, last), side in zip(box, full, strict=True)),
        "scales": all(abs(s.mean) < LARGEST and 0 <= s.std < LARGEST for s in scales),
        "dtypes": all(np.dtype(meta.dtypes[m]).kind in "iuf" for m in meta.modalities),
        "volumes": not meta.volumes or all(meta.volumes[region] >= 0 for region in REGIONS),
        "foreground": all(v.dtype.kind == "i" and 0 <= v.min() <= v.max() < prod(sides) for v in voxels),
        "warnings": all(isinstance(text, str) for text in (*meta.warnings, *meta.allow)),
    }
    wrong = [name for name, fits in fitting.items() if not fits]
    if wrong:
        raise ValueError(f"wrong {', '.join(wrong)}")


def _volumes(label: NDArray[np.uint8], geometry: Geometry) -> dict[str, float]:
    counts = np.bincount(label.ravel(), minlength=max(LABELS.values()) + 1)
    millilitres = float(np.prod(geometry.spacing)) / 1000
    return {region: float(counts[list(classes)].sum() * millilitres) for region, classes in REGIONS.items()}


def _foreground(label: NDArray[np.uint8]) -> dict[int, tuple[int, ...]]:
    flat = label.ravel()
    voxels = np.flatnonzero(flat)
    found = {}
    for number in LABELS.values():
        mine = voxels[flat[voxels] == number]
        if mine.size:
            chosen = np.unique(np.linspace(0, mine.size - 1, min(mine.size, _FOREGROUND_VOXELS)).astype(np.intp))
            found[number] = tuple(int(v) for v in mine[chosen])
    return found

"""Attributes of many cases, without any images."""

import numpy as np

from preprocess.source.geometry import make_geometry
from preprocess.store.meta import CaseMeta
from support.tasks import GLIOMA


def meta(case: str, volume: float) -> CaseMeta:
    return CaseMeta(
        case=case,
        layout="generic",
        task=GLIOMA,
        modalities=("t1",),
        geometry=make_geometry((4, 4, 4), np.eye(4), (slice(0, 4),) * 3),
        label_convention=GLIOMA.convention("brats2023"),
        scales={},
        dtypes={},
        volumes_ml={"WT": volume, "TC": 0.0, "ET": 0.0},
        foreground={},
        sources={},
    )


def cohort_of(patients: int, rng: np.random.Generator) -> dict[str, CaseMeta]:
    names = [f"BraTS-GLI-{n:05d}-{scan:03d}" for n in range(patients) for scan in range(1 + n % 3 % 2)]
    return {name: meta(name, float(rng.uniform(1, 200))) for name in names}

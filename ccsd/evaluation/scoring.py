"""Write and score the label maps of a case. This runs in workers, which do not need torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccsd.config import Evaluation
from ccsd.evaluation.finished_cases import FinishedCases, ScoreRow
from ccsd.evaluation.tables import scored_as
from ccsd.inference.confidence import COLUMN
from ccsd.inference.labelmaps import write_labelmap
from ccsd.metrics import Policy, Reference
from ccsd.metrics.case import NAN
from ccsd.metrics.regions import Labels
from ccsd.study import prediction_file
from preprocess.store.reader import CaseStore
from preprocess.task import Subset, Task

CONFIDENCE_DECIMALS = 4
"""Decimals in the table; further ones would depend on how many combinations are computed together."""


@dataclass(frozen=True, eq=False)
class Found:
    """The models' segmentations of a case from K combinations."""

    subsets: tuple[Subset, ...]
    labels: Labels
    """K x D x H x W, classes of the task."""
    confidence: NDArray[np.float64]
    """K x R, see `ccsd.inference.confidence`; NaN where nothing is painted."""


@dataclass(frozen=True)
class Scoring:
    """How the cases of one evaluation are scored, and where the results go."""

    data: Path
    out: Path
    settings: Evaluation
    policy: Policy
    task: Task
    model: ScoreRow
    """The columns `experiment`, `seed`, `fold` and `model_hash`."""
    finished: FinishedCases

    def score(self, case: str, found: Found) -> list[ScoreRow]:
        """Write and score the label maps of a case (K combinations, K x D x H x W), and record that it is finished.

        Raises
        ------
        InputError
            If the reference cannot be read, or the results cannot be written.
        """
        store = CaseStore(self.data, case)
        geometry = store.meta.geometry
        convention = self.task.output_convention(store.meta.label_convention)
        rows: list[ScoreRow] = []
        if found.subsets:
            reference = Reference(store.read_label(), geometry.spacing, self.policy, self.task, geometry.shape)
        for subset, labels, sure in zip(found.subsets, found.labels, found.confidence, strict=True):
            if self.settings.keep_predictions:
                write_labelmap(prediction_file(self.out, "+".join(subset), case), labels, geometry, convention)
            shared = self._keys(case, subset)
            by_region = dict(zip(self.task.regions, sure.round(CONFIDENCE_DECIMALS).tolist(), strict=True))
            scores = reference.score(labels, cleanup=self.settings.cleanup)
            rows += [{**shared, **row, COLUMN: by_region.get(str(row["region"]), NAN)} for row in scores]
        self.finished.write(case, rows)
        return rows

    def _keys(self, case: str, subset: Subset) -> ScoreRow:
        about = {"case": case, "subset": "+".join(subset), "modalities": len(subset)}
        return {**self.model, **about, **scored_as(self.task, self.policy, self.settings)}

"""What is done with the label maps of a case: they are written and scored. Runs in workers, which need no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ccsd.config import Evaluation
from ccsd.evaluation.finished_cases import FinishedCases, ScoreRow
from ccsd.evaluation.tables import scored_as
from ccsd.inference.labelmaps import write_labelmap
from ccsd.metrics import Policy, Reference
from ccsd.metrics.regions import Labels
from ccsd.study import prediction_file
from preprocess.store.reader import CaseStore
from preprocess.task import Subset, Task


@dataclass(frozen=True)
class Scoring:
    """How the cases of one evaluation are scored, and where the results go."""

    data: Path
    out: Path
    settings: Evaluation
    policy: Policy
    task: Task
    model: ScoreRow
    """The columns `experiment`, `seed` and `model_hash`."""
    finished: FinishedCases

    def score(self, case: str, found: tuple[Sequence[Subset], Labels]) -> list[ScoreRow]:
        """Write and score the label maps of a case (K combinations, K x D x H x W), and record that it is finished.

        Raises
        ------
        InputError
            If the reference cannot be read, or the results not be written.
        """
        store = CaseStore(self.data, case)
        geometry = store.meta.geometry
        convention = self.task.output_convention(store.meta.label_convention)
        subsets, maps = found
        rows: list[ScoreRow] = []
        if subsets:
            reference = Reference(store.read_label(), geometry.spacing, self.policy, self.task, geometry.shape)
        for subset, labels in zip(subsets, maps, strict=True):
            if self.settings.keep_predictions:
                write_labelmap(prediction_file(self.out, "+".join(subset), case), labels, geometry, convention)
            shared = self._keys(case, subset)
            rows += [{**shared, **row} for row in reference.score(labels, cleanup=self.settings.cleanup)]
        self.finished.write(case, rows)
        return rows

    def _keys(self, case: str, subset: Subset) -> ScoreRow:
        about = {"case": case, "subset": "+".join(subset), "modalities": len(subset)}
        return {**self.model, **about, **scored_as(self.task, self.policy, self.settings)}

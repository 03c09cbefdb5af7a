"""Read the scores of models to pack from their evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ccsd.errors import UsageError
from ccsd.evaluation.tables import read_metrics
from ccsd.inference.ensemble import Member, evaluated_as, hash_of
from ccsd.records import EvaluationRecord, short_hash
from ccsd.report.statistics import summarise
from ccsd.study import SCORES_FILE, StudyFolder

SHOWN = ("dice", "hd95")
"""Score columns that a card shows."""


@dataclass(frozen=True)
class Scores:
    """The scores of the models in their evaluations."""

    summary: pd.DataFrame
    """As `ccsd.report.statistics.summarise` returns it."""
    record: EvaluationRecord
    """The record of the first evaluation."""

    @property
    def overall(self) -> dict[str, float]:
        """Mean Dice over all combinations that were scored, by region."""
        rows = self.summary[(self.summary["metric"] == "dice") & (self.summary["scope"] == "overall")]
        found = rows.set_index("region")["mean"].dropna().round(6).to_dict()
        return {str(region): float(mean) for region, mean in found.items()}


def read_scores(members: Sequence[Member], folders: Sequence[Path] = ()) -> Scores | None:
    """Return the scores of models, from the folders given or from the study that their runs belong to.

    Raises
    ------
    UsageError
        If a folder that was given has no scores, or scores of other models or of another evaluation.
    """
    wanted = hash_of(members)
    found = [path for folder in folders for path in _scored(folder)] or _in_study(members, wanted)
    if not found:
        return None
    records = {path: EvaluationRecord.read(path) for path in found}
    for path, record in records.items():
        if record.identity.model_hash != wanted:
            raise UsageError(
                f"{path}: these are the scores of model {short_hash(record.identity.model_hash)}, not of "
                f"{short_hash(wanted)}, which is to be packed; evaluate it, or give the folder of its scores"
            )
    first, *others = records.values()
    for record in others:
        if (record.task, record.policy, record.identity.split_hash) != (
            first.task,
            first.policy,
            first.identity.split_hash,
        ):
            raise UsageError(
                f"{', '.join(map(str, found))}: their cases or scoring rules differ; give folders of a single "
                "evaluation with --evaluation"
            )
    table = pd.concat([read_metrics(path / SCORES_FILE) for path in found], ignore_index=True)
    table = table.drop_duplicates(["case", "subset", "region"])
    return Scores(summarise(table.assign(experiment=evaluated_as(members)), first.task, SHOWN), first)


def _scored(folder: Path) -> list[Path]:
    """Return a folder with scores, or such folders in it: combinations may have been separate jobs."""
    if (folder / SCORES_FILE).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"[!.]*/{SCORES_FILE}"))
    if not found:
        raise UsageError(
            f"{folder}: no scores found ({SCORES_FILE}); `ccsd evaluate --model ... --out {folder}` writes them"
        )
    return found


def _in_study(members: Sequence[Member], wanted: str) -> list[Path]:
    """Return the folders of the runs' scores in their study; scores of earlier weights do not count."""
    folders = {member.saved.folder.resolve().parent for member in members if member.saved.folder is not None}
    if len(folders) != 1 or (runs := folders.pop()).name != "runs":
        return []
    names = {
        evaluated_as(members),
        members[0].saved.folder.name if members[0].saved.folder and len(members) == 1 else "",
    }
    study = StudyFolder(runs.parent)
    places = [path for key, path in study.evaluations().items() if key.partition("/")[0] in names]
    return [path for path in places if EvaluationRecord.read(path).identity.model_hash == wanted]

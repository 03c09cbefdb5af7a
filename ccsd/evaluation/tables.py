"""The tables of scores: their columns, writing them, and reading them back."""

import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ccsd import __version__
from ccsd.config import Evaluation
from ccsd.errors import UsageError
from ccsd.inference.confidence import COLUMN, MEANING
from ccsd.metrics import Policy
from ccsd.metrics.case import CLEANED, NAN, SCORE_COLUMNS
from ccsd.metrics.regions import cleanup_label
from ccsd.records import EvaluationRecord, Identity
from preprocess.files import write_text
from preprocess.task import Task

KEYS = {
    "experiment": "name of the experiment, of an ensemble (`ccsd-s0+1`), or of a folder scored without a model",
    "seed": "seed of the training; empty for an ensemble, and without a model",
    "fold": "fold that holds the case out; empty without folds, and for a fixed test set",
    "case": "name of the case",
    "subset": "the combination of modalities that was segmented, e.g. `flair+t1ce`; `unknown` if no folder names it",
    "modalities": "how many modalities that is",
    "region": "a scored region of the task, e.g. `WT` whole tumour, `TC` tumour core, `ET` enhancing tumour",
}
"""What a row is about: one case, one combination of modalities, one region."""
PROVENANCE = {
    "policy": "how empty regions were scored",
    "cleanup": "the clean-up applied in the `*_clean` columns, e.g. `ET<500mm3:NCR`; `none` without one",
    "task": "name of the task, and the digest of what determines its scores",
    "model_hash": "first 12 digits of the SHA-256 of the weights, or of an ensemble's hashes; empty without a model",
    "split_hash": "first 12 digits of the hash of the split, or of all folds together; empty without a model",
}
"""How the scores of a row were computed."""
SURE = {COLUMN: f"{MEANING}; empty where nothing is segmented, for regions that no model predicts, and without a model"}
"""The models' own estimate of their scores."""
COLUMNS = (*KEYS, *SCORE_COLUMNS, *(f"{name}_clean" for name in CLEANED), *SURE, *PROVENANCE)
LATER = ("fold", COLUMN)
"""The columns that tables of earlier versions lack."""

_COMPUTING = ("torch", "numpy", "scipy", "nibabel")
_TEXT = ("experiment", "case", "subset", "region", "empty", "policy", "cleanup", "task", "model_hash", "split_hash")
_WHOLE = ("seed", "fold", "modalities", "lesions", "lesions_missed", "lesions_false")
DTYPES = {name: "string" if name in _TEXT else "Int64" if name in _WHOLE else "float64" for name in COLUMNS}


def write_metrics(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one row per case, combination and region as TSV."""
    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    # 9 digits hold a float32 exactly, and keep tables the same where sums differ in the last bit.
    write_text(path, table.to_csv(sep="\t", index=False, float_format="%.9g"))


def read_metrics(path: Path) -> pd.DataFrame:
    """Read `metrics.tsv` or `metrics.parquet` with the types of its columns.

    Raises
    ------
    UsageError
        If the file cannot be read or is not such a table.
    """
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, sep="\t", dtype=DTYPES, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a table of scores: {error}; run `ccsd evaluate` again") from None
    absent = [name for name in COLUMNS if name not in table.columns]
    missing = [name for name in absent if name not in LATER]
    if missing:
        raise UsageError(f"{path}: not a table of scores, columns missing: {', '.join(missing)}")
    if not absent:
        return table
    return table.assign(**dict.fromkeys(absent, NAN)).astype({name: DTYPES[name] for name in absent})[list(COLUMNS)]


def mean_dice(table: pd.DataFrame) -> str:
    """Return the mean Dice over cases as text: a row per combination, a column per region."""
    means = table.pivot_table(index="subset", columns="region", values="dice", aggfunc="mean", sort=False)
    text: str = means.rename_axis(index=None, columns=None).to_string(float_format="%.3f", na_rep="-")
    cases = table["case"].nunique()
    return f"mean Dice over {cases} case{'s' * (cases != 1)}\n{text}"


def scored_as(task: Task, policy: Policy, settings: Evaluation) -> dict[str, str]:
    """Return how scores are computed, for the rows of the table."""
    return {"policy": policy.label(), "cleanup": cleanup_text(task, settings), "task": scoring_label(task)}


def scoring_label(task: Task) -> str:
    """Return the name of a task with the digest of what determines its scores."""
    return f"{task.name}@{task.scoring_digest}"


def cleanup_text(task: Task, settings: Evaluation) -> str:
    """Return the clean-up that is scored: `ET<500mm3:NCR`, or `none`."""
    return cleanup_label(task) if settings.cleanup else "none"


def evaluation_record(identity: Identity, task: Task, policy: Policy, **counts: Any) -> EvaluationRecord:
    """Return the record of an evaluation that has just finished."""
    return EvaluationRecord(
        format=2,
        identity=identity,
        task=task,
        policy=policy.label(),
        policy_text=policy.sentence(),
        versions={
            "ccsd": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _COMPUTING},
        },
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        **counts,
    )

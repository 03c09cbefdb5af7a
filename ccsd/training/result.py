"""Write the result of a finished training: the model's weights, and a record of how they were made."""

import json
import subprocess
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import torch
from safetensors import safe_open

from ccsd import __version__
from ccsd.config.load import plugins_of
from ccsd.config.schema import Config
from ccsd.errors import UsageError
from ccsd.model.weights import ABOUT, file_hash, load_weights, save_weights
from ccsd.records import RunRecord
from ccsd.study import BEST, CALIBRATIONS, WEIGHTS
from ccsd.training.distributed import Process
from ccsd.training.engine import whole_weights
from preprocess.files import write_text
from preprocess.splits import FILE as SPLIT_FILE
from preprocess.splits import Split

PACKAGES = ("torch", "deepspeed", "numpy", "zarr")
SECONDS_PER_HOUR = 3600


def keep_if_best(engine: Any, folder: Path, score: float, step: int, process: Process) -> bool:
    """Write the weights beside the checkpoints if the score is the best so far; every process must call this."""
    path = folder / BEST
    better = process.any(process.is_first and (not path.exists() or score > _score_of(path)))
    if better:
        weights = whole_weights(engine, process)
        if process.is_first:
            save_weights(path, weights, {"step": str(step), "score": repr(score)})
        process.wait_for_all()
    return better


def write_result(engine: Any, run: Path, best: Path | None, record: RunRecord, split: Split, process: Process) -> None:
    """Write model.safetensors, split.tsv and then run.json, which marks the run as finished.

    Every process must call this.
    The weights are those of the file `best` if it is given and exists, otherwise the engine's.
    """
    from_best = process.any(process.is_first and best is not None and best.exists())
    weights = {} if from_best else whole_weights(engine, process)
    if not process.is_first:
        return
    step = record.steps
    if from_best and best is not None:
        weights, words = load_weights(best)
        step = int(words["step"])
    for calibration in run.glob(CALIBRATIONS):  # those of earlier weights
        calibration.unlink(missing_ok=True)
    save_weights(run / WEIGHTS, weights, {"step": str(step)})
    write_text(run / SPLIT_FILE, split.as_tsv())
    record.model_copy(update={"selected_step": step, "model_hash": file_hash(run / WEIGHTS)}).write(run)


def run_record(
    config: Config, experiment: str | None, origin: dict[str, Any], process: Process, wall_s: float
) -> RunRecord:
    """Return the record of a training, still without the hash of the weights."""
    is_gpu = process.device.type == "cuda"
    gpus = process.world if is_gpu else 0
    return RunRecord(
        config=config.model_dump(mode="json"),
        experiment=experiment,
        task=config.task.label,
        versions={
            "python": python_version(),
            "ccsd": __version__,
            **{name: version(name) for name in PACKAGES},
        },
        git=git_revision(),
        **origin,
        processes=process.world,
        device=str(process.device.type),
        gpu=torch.cuda.get_device_name(process.device) if is_gpu else None,
        steps=config.train.steps,
        **({"plugins": tuple(plugin.record for plugin in plugins)} if (plugins := plugins_of(config)) else {}),
        wall_s=round(wall_s, 1),
        gpu_hours=round(wall_s / SECONDS_PER_HOUR * gpus, 3),
    )


def finished(run: Path, sciences: Collection[str]) -> bool:
    """Return whether the folder holds the result of a training with one of these digests."""
    try:
        record = RunRecord.read(run)
        return record.science in sciences and record.model_hash == file_hash(run / WEIGHTS)
    except (UsageError, OSError):
        return False


def git_revision() -> str | None:
    """Return the revision of the running source, with `+` if it was changed; None outside a checkout."""
    here = Path(__file__).parent
    try:
        revision, changes = (
            subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "."])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{revision}+" if changes else revision


def _score_of(path: Path) -> float:
    with safe_open(path, framework="pt") as file:  # only the metadata: the weights may be 750 MB
        return float(json.loads(file.metadata()[ABOUT])["score"])

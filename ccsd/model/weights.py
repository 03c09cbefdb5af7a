"""The files of a trained model: weights as safetensors, everything else as JSON. No pickle is ever read."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ccsd.config.schema import Config
from ccsd.errors import UsageError
from ccsd.model.network import Network
from ccsd.model.plugin import build_network
from ccsd.plugins.find import BACKBONE, find, is_plugin
from ccsd.records import RunRecord
from ccsd.study import RECORD_FILE, WEIGHTS
from preprocess.files import complete_or_absent

ABOUT = "ccsd"


@dataclass(frozen=True)
class TrainedModel:
    """A finished training, read back."""

    net: Network
    config: Config
    record: RunRecord


def load_model(folder: Path, device: torch.device | str = "cpu") -> TrainedModel:
    """Read a finished training, ready for inference.

    Raises
    ------
    UsageError
        If the folder is not a finished run, or its files do not belong together.
    """
    record = RunRecord.read(folder)
    config = record.settings(folder)
    weights, _ = load_weights(folder / WEIGHTS)
    if record.model_hash != file_hash(folder / WEIGHTS):
        raise UsageError(
            f"{folder}: {WEIGHTS} is not the file that {RECORD_FILE} describes; copy both again or train again"
        )
    net = _unfilled(folder, record, config)
    try:
        net.load_state_dict(weights, assign=not is_plugin(BACKBONE, config.model.backbone))
    except RuntimeError as error:
        raise UsageError(f"{folder / WEIGHTS}: not the weights of the configured network: {str(error)[:500]}") from None
    return TrainedModel(net.to(device).eval(), config, record)


def _unfilled(folder: Path, record: RunRecord, config: Config) -> Network:
    """Return the network of a run; a plugin that is another one than in the training is reported."""
    name = config.model.backbone
    if not is_plugin(BACKBONE, name):
        with torch.device("meta"):  # neither memory nor time for initial weights, which are replaced at once
            return build_network(config.model, config.task)
    then = next((plugin for plugin in record.plugins if plugin.kind == BACKBONE.noun), None)
    try:
        now = find(BACKBONE, name).record
        if then is not None and now != then:
            print(f"note: {folder} was trained with the {then}, here it is the {now}", file=sys.stderr, flush=True)
        return build_network(config.model, config.task)
    except UsageError as error:
        was = f"trained with the {then}" if then else "trained with a plugin"
        raise UsageError(f"{folder}: {was}, which cannot be used here: {error}") from None


def save_weights(path: Path, weights: dict[str, Tensor], about: Mapping[str, str]) -> None:
    """Write weights as safetensors with a few words about them; complete or absent, equal weights give equal bytes."""
    # One key: safetensors writes several in an order that differs from process to process.
    words = {ABOUT: json.dumps(dict(about), sort_keys=True)}
    with complete_or_absent(path) as temporary:
        save_tensors(temporary, weights, words)


def save_tensors(path: Path, tensors: dict[str, Tensor], words: dict[str, str]) -> None:
    """Write a safetensors file that is as readable as the user's other files: the library makes it private."""
    path.touch()
    mode = path.stat().st_mode
    # A plugin's may be views, which the library refuses.
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=words)
    path.chmod(mode)


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read weights and the words about them.

    Raises
    ------
    UsageError
        If the file is missing or is no safetensors file. No pickle is ever read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return weights, dict(json.loads((file.metadata() or {}).get(ABOUT, "{}")))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; a finished `ccsd train --run {path.parent}` writes it") from None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{path}: not a whole safetensors file ({error}); copy it again or train again; other formats are not read"
        ) from None


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

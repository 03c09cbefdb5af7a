"""The files of a trained model: weights as safetensors, everything else as JSON. No pickle is ever read."""

import json
import mmap
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ccsd.config.schema import Config
from ccsd.errors import UsageError
from ccsd.model.network import Network
from ccsd.model.plugin import build_network
from ccsd.packed.archive import check_weights
from ccsd.plugins.find import BACKBONE, find, is_plugin
from ccsd.records import RunRecord
from ccsd.saved import SavedModel, Weights, part_hash
from ccsd.study import RECORD_FILE
from preprocess.files import complete_or_absent

ABOUT = "ccsd"
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Data types by their name in safetensors, as far as networks use them."""


@dataclass(frozen=True)
class TrainedModel:
    """The loaded result of a finished training."""

    net: Network
    config: Config
    record: RunRecord


def load_model(model: Path | SavedModel, device: torch.device | str = "cpu") -> TrainedModel:
    """Load the result of a finished training, ready for inference.

    Parameters
    ----------
    model
        Folder of a run, or what `ccsd.packed.find.saved_models` returns.
    device
        Device for its network.

    Raises
    ------
    UsageError
        If the folder is not a finished run, its files do not belong together, or a packed file is damaged.
    """
    saved = SavedModel.of_run(model) if isinstance(model, Path) else model
    record, config = saved.record, saved.config
    check_weights(saved)
    weights, _ = load_weights(saved.weights if saved.folder is None else saved.weights.path)
    if saved.folder is not None and record.model_hash != saved.weights.sha256():
        raise UsageError(
            f"{saved.where}: {saved.weights.path.name} is not the file that {RECORD_FILE} describes; copy both again "
            "or train again"
        )
    net = _unfilled(saved)
    what = saved.weights.path if saved.folder is not None else saved.where
    assigned = not is_plugin(BACKBONE, config.model.backbone)
    _reject_unusable(weights, net.state_dict() if assigned else {}, f"{what}")
    try:
        net.load_state_dict(weights, assign=assigned)
    except RuntimeError as error:
        raise UsageError(f"{what}: not the weights of the configured network: {str(error)[:500]}") from None
    return TrainedModel(net.to(device).eval(), config, record)


def _reject_unusable(weights: Mapping[str, Tensor], fresh: Mapping[str, Tensor], what: str) -> None:
    """Reject weights of another data type than those they replace, and NaN, which would silently find nothing."""
    for name, value in weights.items():
        if name in fresh and value.dtype != fresh[name].dtype:
            raise UsageError(
                f"{what}: not the weights of the configured network: {name} is {value.dtype}, not {fresh[name].dtype}"
            )
        if value.isnan().any():
            raise UsageError(f"{what}: {name} is not a number (NaN) in places; copy the file again or train again")


def _unfilled(saved: SavedModel) -> Network:
    """Return the network of a model; report a plugin that differs from the one in the training."""
    record, config = saved.record, saved.config
    name = config.model.backbone
    if not is_plugin(BACKBONE, name):
        try:
            with torch.device("meta"):  # neither memory nor time for initial weights, which are replaced at once
                return build_network(config.model, config.task)
        except (RuntimeError, TypeError) as error:  # for sizes that no machine has
            raise UsageError(f"{saved.where}: its network cannot be built: {error}; {RECORD_FILE} is damaged") from None
    then = next((plugin for plugin in record.plugins if plugin.kind == BACKBONE.noun), None)
    try:
        now = find(BACKBONE, name).record
        if then is not None and now != then:
            print(f"note: {saved.where} was trained with the {then}, here it is the {now}", file=sys.stderr, flush=True)
        return build_network(config.model, config.task)
    except UsageError as error:
        was = f"trained with the {then}" if then else "trained with a plugin"
        raise UsageError(f"{saved.where}: {was}, which cannot be used here: {error}") from None


def save_weights(path: Path, weights: dict[str, Tensor], about: Mapping[str, str]) -> None:
    """Write weights as safetensors with a few words about them; complete or absent, equal weights give equal bytes."""
    # One key: safetensors writes several in an order that differs from process to process.
    words = {ABOUT: json.dumps(dict(about), sort_keys=True)}
    with complete_or_absent(path) as temporary:
        save_tensors(temporary, weights, words)


def save_tensors(path: Path, tensors: dict[str, Tensor], words: dict[str, str]) -> None:
    """Write a safetensors file with the permissions of the user's other files; the library makes it private."""
    path.touch()
    mode = path.stat().st_mode
    # A plugin's tensors may be views, which the library rejects.
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=words)
    path.chmod(mode)


def load_weights(path: Path | Weights) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read weights and the words about them.

    Raises
    ------
    UsageError
        If the file is missing or is no safetensors file. No pickle is ever read.
    """
    if isinstance(path, Weights):
        return _mapped(path)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return weights, dict(json.loads((file.metadata() or {}).get(ABOUT, "{}")))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; a finished `ccsd train --run {path.parent}` writes it") from None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{path}: not a complete safetensors file ({error}); copy it again or train again; other formats are not "
            "read"
        ) from None


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return part_hash(path)


def _mapped(weights: Weights) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map the weights in a packed file into memory, as the library does with a separate file."""
    with weights.path.open("rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    content = memoryview(whole)[weights.start : weights.start + (weights.size or 0)]
    try:
        (length,) = struct.unpack_from("<Q", content)
        about = json.loads(bytes(content[8 : 8 + length]))
        words = about.pop("__metadata__", {})
        data = content[8 + length :]
        return {name: _tensor(data, **entry) for name, entry in about.items()}, json.loads(words.get(ABOUT, "{}"))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise UsageError(
            f"{weights.path}: the weights in it are not complete safetensors ({error}); pack the run again"
        ) from None


def _tensor(data: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    start, end = data_offsets
    kind, count = _DTYPES[dtype], prod(shape)
    if min(start, *shape, 0) < 0 or end - start != count * kind.itemsize or end > len(data):
        raise ValueError(f"a tensor of {count} {dtype} at {start} to {end} of {len(data)} bytes")
    if not count:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(data, dtype=kind, count=count, offset=start).view(shape)

"""Damaged and foreign models, checkpoints and tables of scores."""

import json
import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ccsd.config import Config
from ccsd.evaluation.tables import read_metrics
from ccsd.inference.case import training_spacing
from ccsd.model import SharedSpecificNet, load_model
from ccsd.model.weights import file_hash, save_weights
from ccsd.study import CHECKPOINTS, RECORD_FILE, WEIGHTS
from ccsd.training import checkpoint
from ccsd.training.zero_shards import ABOUT, CheckpointFiles, checkpoint_file_name
from preprocess.splits import read_list
from support.fuzzing import Rng, attempt, flip_bits

ODD = (None, True, -1, 0, 10**6, 2**63, 0.5, "", "x", "../x", [], [1], {}, {"a": 1}, float("inf"))


class Trap:
    """What a pickle would run when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trapped"),))


def damage(data: bytes, rng: Rng) -> bytes:
    """Cut a file, flip bits in its first bytes or anywhere, put a foreign one in its place."""
    kind = rng.integers(6)
    if kind == 0:
        return data[: rng.integers(len(data))]
    if kind == 1:
        return pickle.dumps(Trap())
    if kind == 2:
        return rng.bytes(int(rng.integers(0, 100)))
    return flip_bits(data, rng, None if kind == 3 else min(len(data), 3000))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    config = Config.model_validate(
        {"name": "x", "phantom": {}, "model": {"width": 2, "levels": 2}, "train": {"patch": [16, 16, 16]}}
    )
    save_weights(folder / WEIGHTS, SharedSpecificNet(config.model, config.task).state_dict(), {"step": "1"})
    record = {"config": config.model_dump(mode="json"), "experiment": "a", "spacing_mm": [1.0, 1.0, 1.0]}
    (folder / RECORD_FILE).write_text(json.dumps({**record, "model_hash": file_hash(folder / WEIGHTS)}))
    return folder


def use(folder: Path) -> tuple[float, ...]:
    return training_spacing(load_model(folder).record)


def test_damaged_models(model: Path, tmp_path: Path, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are damaged so that the record still knows them: the hash alone must not be what saves us."""
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(model, tmp_path / "model")
    weights, record = (folder / WEIGHTS).read_bytes(), json.loads((folder / RECORD_FILE).read_text())
    for seed in range(3 * tries):
        rng = np.random.default_rng(seed)
        (folder / WEIGHTS).write_bytes(damage(weights, rng) if seed % 3 == 0 else weights)
        changed = json.loads(json.dumps(record)) | {"model_hash": file_hash(folder / WEIGHTS)}
        if seed % 3 == 1:
            section = changed if rng.integers(2) else changed["config"][rng.choice(["model", "train"])]
            section[rng.choice(sorted(section))] = ODD[rng.integers(len(ODD))]
        text = json.dumps(changed).encode()
        (folder / RECORD_FILE).write_bytes(damage(text, rng) if seed % 3 == 2 else text)
        attempt(partial(use, folder), f"seed {seed}")
    assert not (tmp_path / "trapped").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with one checkpoint of a small module, in two parts."""
    run = tmp_path_factory.mktemp("run")
    folder = run / CHECKPOINTS / "step-00000007"
    folder.mkdir(parents=True)
    for rank, runs in enumerate(({"weight": [0, 7]}, {"weight": [6, 7], "bias": [0, 7]})):
        names = {name: torch.ones(6 if name == "weight" else 4) for name in runs}
        tensors = {f"{kind}/{name}": value.clone() for name, value in names.items() for kind in ("weight", "exp_avg")}
        save_file(tensors, folder / checkpoint_file_name(rank, 2), metadata={ABOUT: json.dumps(runs)})
    mark = {"step": 7, "world": 2, "zero_stage": 1, "science": "s", "wall_s": 1.5}
    (folder / checkpoint.META).write_text(json.dumps(mark))
    return run


def resume(run: Path) -> torch.nn.Module:
    mark = checkpoint.latest(run)
    assert mark is not None
    module = torch.nn.Linear(3, 4)
    with CheckpointFiles(run / CHECKPOINTS / mark.tag, mark.world) as parts:
        parts.load_weights(module)
    return module


def test_damaged_checkpoints(saved: Path, tmp_path: Path, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (resume(saved).weight == 1).all()
    run = shutil.copytree(saved, tmp_path / "run")
    folder = run / CHECKPOINTS / "step-00000007"
    whole = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    rejected = 0
    for seed in range(8 * tries):
        rng = np.random.default_rng(seed)
        path = list(whole)[rng.integers(len(whole))]
        if path.suffix == ".json" and rng.integers(2):
            mark = json.loads(whole[path])
            mark[rng.choice(sorted(mark))] = ODD[rng.integers(len(ODD))]
            path.write_text(json.dumps(mark))
        else:
            path.write_bytes(damage(whole[path], rng))
        _, message = attempt(partial(resume, run), f"{path.name}, seed {seed}")
        assert "remove this folder" in message or not message
        rejected += bool(message)
        path.write_bytes(whole[path])
    assert rejected > tries
    assert not (tmp_path / "trapped").exists()


def test_damaged_tables(tmp_path: Path, tries: int) -> None:
    """Lists of cases and tables of scores, damaged byte by byte and field by field."""
    split = "case\tsplit\n" + "".join(f"case{n}\t{name}\n" for n, name in enumerate(("train", "val", "test")))
    fields = ("", "train", "../x", "a" * 999, "\0", "\u2028", "case1", "\udcff", "case\tsplit", "\r", '"')
    for seed in range(10 * tries):
        rng = np.random.default_rng(seed)
        path = tmp_path / "split.tsv"
        if rng.integers(2):
            path.write_bytes(damage(split.encode(), rng))
        else:
            rows = [row.split("\t") for row in split.splitlines()]
            rows[rng.integers(len(rows))][rng.integers(2)] = str(rng.choice(fields))
            path.write_text("\n".join("\t".join(row) for row in rows), errors="surrogateescape")
        found, message = attempt(partial(read_list, path), f"seed {seed}")
        assert str(path) in message if message else all("/" not in case and case.isprintable() for case in found)
        attempt(partial(read_metrics, path), f"scores, seed {seed}")

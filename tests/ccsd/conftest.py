"""A small study with an untrained model, enough for everything that comes after training; and a plugin."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from support import ROOT
from support.tasks import GLIOMA

PATCH = (24, 24, 24)


@pytest.fixture(scope="session")
def made_study(cohort: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return `results/NAME` with four of the phantoms, a split (two for testing) and a run; do not change it."""
    from ccsd.config import Config
    from ccsd.model import SharedSpecificNet
    from ccsd.model.weights import file_hash, save_weights
    from ccsd.study import RECORD_FILE, WEIGHTS
    from preprocess.dataset import write_tables
    from preprocess.phantom.cohort import MARK, case_names

    root = tmp_path_factory.mktemp("study") / "results" / "tiny"
    cases = sorted(case_names(4, GLIOMA))
    for case in cases:
        shutil.copytree(cohort / case, root / "phantoms" / case, copy_function=os.link)
        shutil.copytree(data / f"{case}.zarr", root / "data" / f"{case}.zarr", copy_function=os.link)
    shutil.copy(cohort / MARK, root / "phantoms")
    write_tables(root / "data")
    split = [f"{case}\t{part}" for case, part in zip(cases, ("train", "test", "val", "test"), strict=True)]
    (root / "data" / "split.tsv").write_text("case\tsplit\n" + "\n".join(split) + "\n")
    config = Config.model_validate(
        {
            "name": "tiny",
            "phantom": {"cases": 4, "size": 32},
            "model": {"width": 4, "levels": 3},
            "train": {"patch": PATCH, "precision": "fp32"},
            "evaluation": {},
        }
    )
    torch.manual_seed(0)
    run = root / "runs" / "ccsd-s0"
    run.mkdir(parents=True)
    save_weights(run / WEIGHTS, SharedSpecificNet(config.model, config.task).state_dict(), {})
    record = {"config": config.model_dump(mode="json"), "experiment": "ccsd", "model_hash": file_hash(run / WEIGHTS)}
    record |= {"steps": 30, "wall_s": 90.0, "gpu_hours": 0.0, "git": "0123abc", "data_hash": "d" * 64}
    record["spacing_mm"] = [1.0, 1.0, 1.0]
    (run / RECORD_FILE).write_text(json.dumps(record))
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in _events()))
    (root / "config.yaml").write_text("name: tiny\nphantom: {cases: 4, size: 32}\n")
    return root


@pytest.fixture(scope="session")
def evaluated_study(made_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the study with its evaluation; do not change it."""
    from ccsd.evaluation.run import evaluate_model

    root = tmp_path_factory.mktemp("evaluated") / "tiny"
    shutil.copytree(made_study, root, copy_function=os.link)
    evaluate_model(root / "runs" / "ccsd-s0", root / "data", root / "evaluation" / "ccsd-s0" / "all")
    return root


@pytest.fixture
def study(evaluated_study: Path, tmp_path: Path) -> Path:
    """Return an evaluated study of the test's own."""
    return Path(shutil.copytree(evaluated_study, tmp_path / "tiny"))


@pytest.fixture
def make_run(made_study: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes an untrained run like that of the study, with weights of its own seed.

    Keywords besides `experiment`, `seed` and `spacing_mm` are sections of the configuration that differ.
    """
    from ccsd.config import Config
    from ccsd.model import SharedSpecificNet
    from ccsd.model.weights import file_hash, save_weights
    from ccsd.study import RECORD_FILE, WEIGHTS

    about = json.loads((made_study / "runs" / "ccsd-s0" / RECORD_FILE).read_text())

    def make(name: str, seed: int = 0, **changes: Any) -> Path:
        run = tmp_path / "made" / name
        run.mkdir(parents=True)
        record = about | {key: changes.pop(key) for key in ("experiment", "spacing_mm") if key in changes}
        raw = record["config"]
        raw = raw | {key: {**raw[key], **value} if isinstance(value, dict) else value for key, value in changes.items()}
        config = Config.model_validate(raw | {"train": raw["train"] | {"seed": seed}})
        torch.manual_seed(seed)
        weights = SharedSpecificNet(config.model, config.task).state_dict()
        weights["decoder.head.weight"] *= 20  # untrained, yet with much to show
        weights["decoder.head.bias"].fill_(0.5)
        save_weights(run / WEIGHTS, weights, {})
        record |= {"config": config.model_dump(mode="json"), "model_hash": file_hash(run / WEIGHTS)}
        (run / RECORD_FILE).write_text(json.dumps(record))
        return run

    return make


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the charts of reports empty but for their descriptions: drawing them is most of what a report takes."""
    from markupsafe import Markup

    def inline(drawing: object, name: str, description: str) -> Markup:
        return Markup('<svg role="img" aria-label="{}"></svg>').format(description)

    monkeypatch.setattr("ccsd.report.charts.inline", inline)


@pytest.fixture(scope="session")
def imported_by() -> Callable[..., set[str]]:
    """Return a function that runs a command in a fresh interpreter and returns the packages it imported."""

    def run(*words: object) -> set[str]:
        code = "import sys\ntry:\n    from ccsd.cli import main; main()\nfinally:\n    print(*sys.modules)"
        command = [sys.executable, "-c", code, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}

    return run


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the installed package; on PYTHONPATH it is found."""
    root = tmp_path_factory.mktemp("example")
    shutil.copytree(ROOT / "tests/support/example_plugin", root / "source")  # building writes beside the source
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run([*command, "--target", str(root / "site"), str(root / "source")], check=True, timeout=120)
    return root / "site"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, for this process and those that it starts."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
    return site


def _events() -> list[dict[str, object]]:
    steps = [
        {"event": "train", "step": s, "loss": 3 - s / 20, "supervised": 2 - s / 20, "hmsd": 0.4, "dmcd": 0.3,
         "shared": 0.1, "specific": 0.2}
        for s in range(1, 31)
    ]  # fmt: skip
    removal = {"event": "removal", "step": 30, "first": {"t1ce": 0.75, "flair": 0.25},
               "paths": {"t1ce>flair>t2": 0.75, "flair>t1ce>t2": 0.25}}  # fmt: skip
    dice = {"t1ce": {"WT": 0.5, "TC": 0.4, "ET": 0.3}, "flair": {"WT": 0.6, "TC": 0.2, "ET": 0.1}}
    return [*steps, removal, {"event": "validation", "step": 30, "dice": dice, "mean": 0.35}]

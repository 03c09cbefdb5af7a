"""What is packed says nothing of this machine, and its card says what is known of the model, and what is not."""

import json
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ccsd.cli import app
from ccsd.config.load import plugins_of
from ccsd.errors import UsageError
from ccsd.evaluation.run import evaluate_model
from ccsd.inference.ensemble import load_ensemble, read_members
from ccsd.inference.predict import Options, predict
from ccsd.packed.pack import pack
from ccsd.packed.shelf import card_of
from ccsd.records import EvaluationRecord, RunRecord
from ccsd.report.statistics import bootstrap
from ccsd.start import start_of
from ccsd.study import Study
from support.runs import SMALL, config_of, write_run


def test_no_place_of_this_machine_is_packed(tmp_path: Path) -> None:
    secret = "alice-pc"
    source = f"/home/{secret}/BraTS2023"
    config = config_of()
    config = config.model_copy(update={"source": Path(source), "phantom": None})
    lists = config.split.model_copy(update={"list": Path(f"../{secret}/split.tsv")})
    fresh = config.predict.model_copy(update={"source": Path(f"C:\\Users\\{secret}\\new")})
    config = config.model_copy(
        update={"split": lists, "predict": fresh, "experiments": {"ours": {"train.init": source}}}
    )
    earlier = {"run": f"/x/{secret}/first-s0", "model_hash": "1" * 64}
    start = {"run": f"results/{secret}/runs/start-s0", "model_hash": "2" * 64, "start": earlier}
    write_run(tmp_path / secret / "run", config, start=start)
    packed = pack([tmp_path / secret / "run"], tmp_path / "out.ccsd")

    content = packed.path.read_bytes()
    assert secret.encode() not in content.replace(b"run-s0", b"")
    assert str(tmp_path).encode() not in content
    with zipfile.ZipFile(packed.path) as file:
        record = json.loads(file.read("models/1/run.json"))
    assert record["config"]["source"] == "BraTS2023"
    assert record["start"]["run"] == "start-s0"
    assert "from the folder BraTS2023" in card_of(str(packed.path))


def test_a_path_that_a_network_is_built_with_cannot_be_packed(tmp_path: Path) -> None:
    write_run(tmp_path / "run", config_of())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["config"]["model"] |= {"backbone": "mine", "options": {"weights": ["/data/w.safetensors"]}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"model\.options\.weights\.0=/data/w\.safetensors is a path on one machine"):
        pack([tmp_path / "run"], tmp_path / "out.ccsd")


def test_the_card_has_scores_with_their_intervals_and_what_is_not_known(study: Path, tmp_path: Path) -> None:
    packed = pack([study / "runs" / "ccsd-s0"], tmp_path / "m.ccsd", notes=["Licence: CC BY 4.0"])
    text = card_of(str(packed.path))

    rows = re.findall(r"^\| (\S+) \| ([0-9.]+) \(([0-9.]+) to ([0-9.]+)\)", text.partition("| HD95")[0], re.MULTILINE)
    assert len(rows) == 15
    import pandas as pd

    table = pd.read_csv(study / "evaluation/ccsd-s0/all/metrics.tsv", sep="\t")
    own = table[(table["subset"] == "flair+t1ce") & (table["region"] == "WT")]["dice"].to_numpy()
    low, high = bootstrap(own[:, None].astype(np.float64))
    (row,) = (row for row in rows if row[0] == "flair+t1ce")
    assert row[1:] == (f"{own.mean():.3f}", f"{low:.3f}", f"{high:.3f}")
    for words in (
        "Not for clinical use",
        "Of no use on patients",
        "Licence: CC BY 4.0",
        "d" * 12,
        "What it was not tested",
    ):
        assert words in text
    assert packed.manifest.dice["WT"] == pytest.approx(table[table["region"] == "WT"]["dice"].mean(), abs=1e-5)


def test_scores_of_other_weights_are_never_on_the_card(study: Path, tmp_path: Path) -> None:
    scores = study / "evaluation" / "ccsd-s0" / "all"
    shutil.copytree(study / "runs" / "ccsd-s0", tmp_path / "elsewhere" / "ccsd-s0")
    alone = pack([tmp_path / "elsewhere" / "ccsd-s0"], tmp_path / "alone.ccsd")
    assert alone.notes
    assert "Not evaluated" in card_of(str(alone.path))
    named = pack([tmp_path / "elsewhere" / "ccsd-s0"], tmp_path / "named.ccsd", evaluations=[scores.parent])
    assert named.manifest.dice

    record = EvaluationRecord.read(scores)
    other = record.identity.model_copy(update={"model_hash": "0" * 64})
    record.model_copy(update={"identity": other}).write(scores)
    assert not pack([study / "runs" / "ccsd-s0"], tmp_path / "old.ccsd").manifest.dice
    with pytest.raises(UsageError, match="scores of model 000000000000, not of"):
        pack([study / "runs" / "ccsd-s0"], tmp_path / "x.ccsd", evaluations=[scores])
    with pytest.raises(UsageError, match="no scores found"):
        pack([study / "runs" / "ccsd-s0"], tmp_path / "x.ccsd", evaluations=[tmp_path])


def test_a_packed_model_predicts_and_scores_as_its_run(study: Path, tmp_path: Path) -> None:
    run, packed = study / "runs" / "ccsd-s0", pack([study / "runs" / "ccsd-s0"], tmp_path / "m.ccsd").path
    case = min(path for path in (study / "phantoms").iterdir() if path.is_dir())
    for model, out in ((run, "a"), (packed, "b")):
        (outcome,) = predict([case], tmp_path / out, model, Options("flair"))
        assert outcome.error is None
        evaluate_model(model, study / "data", tmp_path / "scores" / out, ["t1"])
    for name in (f"{case.name}.nii.gz", f"{case.name}.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "scores/a/metrics.tsv").read_bytes() == (tmp_path / "scores/b/metrics.tsv").read_bytes()
    assert (
        EvaluationRecord.read(tmp_path / "scores/b").identity == EvaluationRecord.read(tmp_path / "scores/a").identity
    )


def test_a_packed_model_is_a_start_for_fine_tuning_and_is_named_without_its_place(
    seeds: list[Path], single: Path, both: Path, tmp_path: Path
) -> None:
    from ccsd.config.science import science_digest
    from ccsd.training.fine_tuning import fine_tuning_of

    tuned = fine_tuning_of(config_of(init=single), tmp_path / "own")
    assert tuned is not None
    assert tuned.record.run == "ours-s0"
    assert tuned.record.model_hash == RunRecord.read(seeds[0]).model_hash
    assert science_digest(config_of(init=single), "") == science_digest(config_of(init=seeds[0]), "")
    with pytest.raises(
        UsageError, match=r"train\.init: .*both\.ccsd: contains 2 models as one, but exactly one is needed here"
    ):
        start_of(config_of(init=both))
    raw = {"name": "s", "phantom": {}, "model": SMALL, "train": {"init": str(single), "patch": [16, 16, 16]}}
    assert Study.from_mapping(raw).training_digest("ccsd-s0")


def test_the_commands(seeds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*words: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words])

    done = run("pack", *seeds, tmp_path / "two.ccsd")
    assert done.exit_code == 0
    assert re.search(r"sha256=[0-9a-f]{64}\n.*two\.ccsd\n$", done.stdout)
    assert "not evaluated" in done.stderr
    assert "must end in .ccsd" in str(run("pack", seeds[0], tmp_path / "two.zip").exception)
    assert "each model once" in str(run("pack", seeds[0], seeds[0], tmp_path / "x.ccsd").exception)

    monkeypatch.setenv("CCSD_MODELS", str(tmp_path))
    assert "two    task brats-gli-pre@" in run("models").stdout
    assert run("models", "two").stdout.startswith("# ours-s0+1\n")
    (tmp_path / "cut.ccsd").write_bytes((tmp_path / "two.ccsd").read_bytes()[:-1])
    (tmp_path / "steering\x1b[2J.ccsd").write_bytes(b"")
    listed = run("models")
    assert "\x1b" not in listed.stdout
    assert "cut\n    " in listed.stdout
    assert "two    task" in listed.stdout
    assert "2 of " in str(listed.exception)
    assert "cannot be used: cut" in str(listed.exception)
    assert "not a packed model with a card; pack a run" in str(run("models", seeds[0]).exception)


def test_models_that_do_not_fit_are_not_packed_together(make_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [make_run("a", seed=3), make_run("b", seed=4, spacing_mm=[2.0, 1.0, 1.0])]
    with pytest.raises(UsageError, match="was trained at voxels of"):
        pack(runs, tmp_path / "out.ccsd")


def test_a_packed_plugin_is_named_and_needs_its_package(
    installed: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(model={"backbone": "mean"})
    plugins = tuple(plugin.record for plugin in plugins_of(config))
    write_run(tmp_path / "run", config, plugins=plugins)
    packed = pack([tmp_path / "run"], tmp_path / "m.ccsd").path
    assert f"| needs | {plugins[0]} |" in card_of(str(packed))
    assert load_ensemble(read_members(packed)).models

    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(site)])
    with pytest.raises(UsageError, match=r"m\.ccsd: trained with the backbone mean .*, which cannot be used here"):
        load_ensemble(read_members(packed))

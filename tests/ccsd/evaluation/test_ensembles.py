"""`ccsd evaluate --model A --model B`: the ensemble is scored as an experiment of its own, and says what it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from ccsd.evaluation import read_metrics
from ccsd.evaluation.run import evaluate_model
from ccsd.inference.options import Options
from ccsd.inference.predict import predict
from ccsd.records import EvaluationRecord
from ccsd.study import digest
from preprocess.dataset import read_fingerprint
from preprocess.splits import read_split
from support.processes import ccsd_here

MakeRun = Callable[..., Path]


@pytest.fixture
def runs(make_run: MakeRun) -> list[Path]:
    return [make_run("first", seed=1), make_run("second", seed=2, train={"patch": (16, 24, 24)})]


def about(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "evaluation.json").read_text())["identity"])


def options(runs: list[Path], data: Path, out: Path) -> list[object]:
    models = [word for run in runs for word in ("--model", run)]
    return [*models, "--data", data, "--out", out, "-m", "t1+t2", "--workers", 1]


def test_rows_and_record_name_all_models_in_order(made_study: Path, runs: list[Path], tmp_path: Path) -> None:
    done = ccsd_here("evaluate", *options(runs, made_study / "data", tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    table, identity = read_metrics(tmp_path / "out" / "metrics.tsv"), about(tmp_path / "out")
    hashes = [json.loads((run / "run.json").read_text())["model_hash"] for run in runs]

    assert set(table["experiment"]) == {"ccsd-s1+2"} == {identity["experiment"]}
    assert table["seed"].isna().all()
    assert set(table["model_hash"]) == {identity["model_hash"][:12]}
    assert identity["models"] == [
        {"experiment": "ccsd", "seed": 1, "model_hash": hashes[0], "window": [24, 24, 24]},
        {"experiment": "ccsd", "seed": 2, "model_hash": hashes[1], "window": [16, 24, 24]},
    ]
    other = evaluate_model(runs[::-1], made_study / "data", tmp_path / "other", ["t1+t2"])
    assert other is not None
    assert about(other.parent)["model_hash"] not in (identity["model_hash"], *hashes)
    scores = read_metrics(other).drop(columns=["experiment", "model_hash"])
    pd.testing.assert_frame_equal(scores, table.drop(columns=["experiment", "model_hash"]))


def test_label_maps_are_those_of_the_mean(made_study: Path, runs: list[Path], tmp_path: Path) -> None:
    evaluate_model(runs, made_study / "data", tmp_path / "out", ["t1+t2"])
    for path in (tmp_path / "out" / "predictions" / "t1+t2").glob("*.nii.gz"):
        source = made_study / "phantoms" / path.name.removesuffix(".nii.gz")
        (found,) = predict([source], tmp_path / "predicted", runs, Options("t1+t2"))
        ours, theirs = (np.asarray(nib.load(file).dataobj) for file in (path, found.path))
        alone = [
            np.asarray(nib.load(next(predict([source], tmp_path / run.name, run, Options("t1+t2"))).path).dataobj)
            for run in runs
        ]
        # The stored case is cropped to its box, which may move windows and borders by a voxel.
        assert np.mean(ours != theirs) < 0.005
        assert all(np.mean(ours != one) > 0.005 for one in alone)


def test_parts_and_another_member_of_an_ensemble(made_study: Path, runs: list[Path], tmp_path: Path) -> None:
    data, out = made_study / "data", tmp_path / "out"
    assert evaluate_model(runs, data, out, ["t2"], part=(2, 2)) is None
    joined = evaluate_model(runs, data, out, ["t2"], part=(1, 2))
    whole = evaluate_model(runs, data, tmp_path / "whole", ["t2"])
    assert joined is not None
    assert whole is not None
    assert joined.read_bytes() == whole.read_bytes()

    alone = evaluate_model(runs[0], data, out, ["t2"])
    assert alone is not None
    assert set(read_metrics(alone)["experiment"]) == {"ccsd"}


def test_what_one_model_leaves_is_what_it_was_before_there_were_ensembles(evaluated_study: Path) -> None:
    """Otherwise finished evaluations would be computed again."""
    identity = about(evaluated_study / "evaluation" / "ccsd-s0" / "all")
    assert list(identity) == [
        "experiment", "seed", "task", "model_hash", "split_hash", "cases", "subsets", "settings",
        "content_hash", "window", "spacing_mm", "painted",
    ]  # fmt: skip
    record = EvaluationRecord.read(evaluated_study / "evaluation" / "ccsd-s0" / "all")
    assert digest(record.identity.model_dump(mode="json", exclude_unset=True)) == digest(identity)


def test_a_model_that_was_trained_by_another_split_of_the_data_is_named(
    made_study: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = made_study / "data"
    for run, of_data, of_split in (
        (runs[0], read_fingerprint(data)["data_hash"], read_split(data).hash),
        (runs[1], read_fingerprint(data)["data_hash"], "another"),
    ):
        record = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**record, "data_hash": of_data, "split_hash": of_split}))
    evaluate_model(runs, data, tmp_path / "out", ["t2"])
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert f"{runs[1]} was trained with another split of {data}" in said

    record = json.loads((runs[1] / "run.json").read_text())
    (runs[1] / "run.json").write_text(json.dumps({**record, "data_hash": "of other data"}))
    evaluate_model(runs, data, tmp_path / "out", ["t2"])
    assert "another split" not in capsys.readouterr().err


def test_models_that_do_not_fit_together_write_nothing(
    made_study: Path, runs: list[Path], make_run: MakeRun, tmp_path: Path
) -> None:
    other = make_run("third", seed=3, spacing_mm=[3.0, 1.0, 1.0])
    done = ccsd_here("evaluate", *options([*runs, other], made_study / "data", tmp_path / "out"))
    assert done.returncode == 2
    assert "third was trained at voxels of 1 x 1 x 3 mm" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_several_models_need_data_and_files_need_none(runs: list[Path], tmp_path: Path) -> None:
    models = [word for run in runs for word in ("--model", run)]
    for words in (models, [*models, "--pred", tmp_path, "--ref", tmp_path], []):
        done = ccsd_here("evaluate", *words, "--out", tmp_path / "out")
        assert (done.returncode, "give either --model and --data" in done.stderr) == (2, True)

"""`ccsd evaluate --model`: what it writes, that it can be resumed, and that parallel jobs change nothing."""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from ccsd.errors import UsageError
from ccsd.evaluation import read_metrics
from ccsd.evaluation import run as module
from ccsd.evaluation.run import evaluate_model
from ccsd.inference import case as case_module
from ccsd.inference.labelmaps import read_labelmap
from ccsd.inference.options import Options
from ccsd.inference.predict import predict
from preprocess.dataset import content_hash
from preprocess.store.reader import CaseStore
from preprocess.store.shard import ShardArray
from support.tasks import GLIOMA


@pytest.fixture
def evaluate(made_study, tmp_path):
    def run(*subsets, overrides=(), out=tmp_path / "out", **how):
        return evaluate_model(made_study / "runs" / "ccsd-s0", made_study / "data", out, subsets, overrides, **how)

    return run


def test_all_cases_combinations_and_regions_are_scored_with_their_provenance(evaluated_study):
    out = evaluated_study / "evaluation" / "ccsd-s0" / "all"
    table = read_metrics(out / "metrics.tsv")
    about = json.loads((out / "evaluation.json").read_text())

    assert len(table) == 2 * 15 * 3
    assert list(dict.fromkeys(table["subset"])) == list(GLIOMA.subset_names)
    assert set(table["experiment"]) == {"ccsd"}
    assert set(table["seed"]) == {0}
    assert set(table["model_hash"]) == {about["identity"]["model_hash"][:12]}
    assert set(table["split_hash"]) == {about["identity"]["split_hash"][:12]}
    assert about["policy_text"].startswith("Where prediction and reference are both empty")
    assert about["versions"]["torch"]
    assert len(list(out.glob("predictions/*/*.nii.gz"))) == 30
    assert not [p for p in out.rglob("*") if p.name.startswith(".")]


def test_predictions_lie_in_the_space_and_labels_of_the_source(evaluated_study):
    out = evaluated_study / "evaluation" / "ccsd-s0" / "all"
    for path in out.glob("predictions/flair/*.nii.gz"):
        case = path.name.removesuffix(".nii.gz")
        store = CaseStore(evaluated_study / "data", case)
        source = next((evaluated_study / "phantoms").rglob(f"{case}*seg.nii.gz"))
        written, original = nib.load(path), nib.load(source)
        allowed = {0, *dict(store.meta.label_convention.values)}

        assert written.shape == original.shape
        np.testing.assert_allclose(written.affine, original.affine)
        assert set(np.unique(written.dataobj)) <= allowed
        back = read_labelmap(path, store.meta.label_convention).labels
        assert np.count_nonzero(back) == np.count_nonzero(written.dataobj)


def test_fan_out_by_combination_gives_the_same_numbers(evaluate, evaluated_study, tmp_path):
    whole = read_metrics(evaluated_study / "evaluation" / "ccsd-s0" / "all" / "metrics.tsv")
    for name in ("t1ce", "flair+t1+t2"):
        one = read_metrics(evaluate(name, out=tmp_path / name))
        expected = whole[whole["subset"] == name].reset_index(drop=True)
        np.testing.assert_allclose(one.pop("confidence"), expected.pop("confidence"), atol=1.1e-4)
        pd.testing.assert_frame_equal(one, expected, check_exact=True)


def test_absent_modalities_are_never_read(evaluate, monkeypatch):
    read = set()
    original = ShardArray._fill
    monkeypatch.setattr(
        ShardArray, "_fill", lambda self, file, lead, *rest: read.add(lead) or original(self, file, lead, *rest)
    )
    evaluate("t2+flair", "flair")

    assert read == {GLIOMA.modalities.index("flair"), GLIOMA.modalities.index("t2"), None}  # None: the label


def test_interrupted_evaluation_carries_on_with_the_cases_that_are_left(evaluate, tmp_path, monkeypatch):
    seen = []
    original = module._segment

    def interrupted(job, image):
        seen.append(image)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(job, image)

    monkeypatch.setattr(module, "_segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate("t2")
    assert not (tmp_path / "out" / "metrics.tsv").exists()
    resumed = read_metrics(evaluate("t2"))
    undisturbed = read_metrics(evaluate("t2", out=tmp_path / "other"))

    assert len(seen) == 2 + 1 + 2
    pd.testing.assert_frame_equal(resumed, undisturbed, check_exact=True)


def test_finished_evaluation_is_left_alone_and_another_setting_starts_anew(evaluate, monkeypatch):
    first = evaluate("t1").read_bytes()
    monkeypatch.setattr(module, "_segment", lambda *_: pytest.fail("nothing was to be done"))
    assert evaluate("t1").read_bytes() == first
    monkeypatch.undo()

    changed = read_metrics(evaluate("t1", overrides=["evaluation.hd95_penalty=1"]))
    assert changed["policy"].str.contains("hd95=1,").all()


def test_other_contents_of_the_same_cases_are_scored_anew(evaluate, made_study, tmp_path, monkeypatch):
    path = evaluate("t1").with_name("evaluation.json")
    record = json.loads(path.read_text())
    calls, original = [], module._segment
    monkeypatch.setattr(module, "_segment", lambda *a: calls.append(a) or original(*a))
    cases = record["identity"]["cases"]
    assert record["identity"].pop("content_hash") == content_hash(made_study / "data", cases)
    path.write_text(json.dumps(record))  # as earlier versions wrote it
    evaluate("t1")
    assert calls == []
    path.write_text(json.dumps({**record, "identity": {**record["identity"], "content_hash": "of others"}}))
    evaluate("t1")
    assert len(calls) == len(cases)


def test_an_evaluation_that_painted_outside_the_brain_is_made_again(evaluate, monkeypatch):
    path = evaluate("t1").with_name("evaluation.json")
    record = json.loads(path.read_text())
    assert record["identity"].pop("painted") == "brain"
    path.write_text(json.dumps(record))
    calls, original = [], module._segment
    monkeypatch.setattr(module, "_segment", lambda *a: calls.append(a) or original(*a))
    evaluate("t1")
    assert len(calls) == 2
    assert json.loads(path.read_text())["identity"]["painted"] == "brain"


def test_what_is_scored_is_cut_as_what_is_predicted(evaluate, made_study, tmp_path, monkeypatch):
    def everywhere(_, image, subsets, *rest):
        return torch.ones(len(subsets), 3, *image.shape[1:])

    monkeypatch.setattr(case_module, "mean_probabilities", everywhere)
    out = evaluate("flair", "t1ce+t2").parent
    for path in out.glob("predictions/*/*.nii.gz"):
        name, options = path.name.removesuffix(".nii.gz"), Options(path.parent.name)
        (found,) = predict([made_study / "phantoms" / name], tmp_path / "new", made_study / "runs" / "ccsd-s0", options)
        written, expected = (np.asarray(nib.load(p).dataobj) for p in (found.path, path))
        box = tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(written))
        assert np.mean(written[box] != 0) < 0.8  # round as a head, and not the box around it
        np.testing.assert_array_equal(written, expected)


def test_case_that_lacks_modalities_is_scored_where_it_can_be(made_study, tmp_path, monkeypatch):
    monkeypatch.setattr(CaseStore, "modalities", ("flair", "t1"))
    table = read_metrics(evaluate_model(made_study / "runs" / "ccsd-s0", made_study / "data", tmp_path / "out"))

    assert set(table["subset"]) == {"flair", "t1", "flair+t1"}


def test_model_of_another_spacing_scores_what_prediction_gives(made_study, tmp_path):
    run = shutil.copytree(made_study / "runs" / "ccsd-s0", tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "spacing_mm": [1.5, 1.0, 1.0]}))
    out = evaluate_model(run, made_study / "data", tmp_path / "out", ["flair+t1+t1ce+t2"]).parent
    for path in out.glob("predictions/*/*.nii.gz"):
        case = path.name.removesuffix(".nii.gz")
        (found,) = predict([made_study / "phantoms" / case], tmp_path / "predicted", run)
        written, expected = (np.asarray(nib.load(p).dataobj) for p in (found.path, path))

        assert any("resampled" in text for text in found.warnings)
        # The stored case is cropped to the label as well, which may move the border by a voxel.
        assert np.mean(written != expected) < 0.01


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.steps=3"], "evaluation.overlap"),
        (["evaluation.overlap=2"], "evaluation.overlap"),
        (["evaluation.nonsense=2"], "unknown key"),
        (["evaluation.overlap"], "KEY=VALUE"),
    ],
)
def test_settings_that_cannot_be_used_are_rejected_before_anything_is_written(evaluate, tmp_path, overrides, words):
    with pytest.raises(UsageError, match=words):
        evaluate("t1", overrides=overrides)
    assert not (tmp_path / "out").exists()


def test_split_without_test_cases_is_rejected(made_study, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(made_study / "data", data)
    text = (data / "split.tsv").read_text()
    (data / "split.tsv").write_text(text.replace("test", "train"))
    with pytest.raises(UsageError, match="the split has no test case"):
        evaluate_model(made_study / "runs" / "ccsd-s0", data, tmp_path / "out")

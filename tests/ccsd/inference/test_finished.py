"""What `ccsd predict` takes for finished, what it records of a segmentation, and parts of a call."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256

import pytest

from ccsd.errors import UsageError
from ccsd.inference.options import Options
from ccsd.inference.predict import predict
from preprocess.source.layouts import discover
from support.predicting import image, one
from support.processes import ccsd_here
from support.tasks import GLIOMA


def test_finished_cases_can_be_skipped(case, run, tmp_path):
    one(case, tmp_path / "out", run)
    path = tmp_path / "out" / f"{case.name}.nii.gz"
    path.write_bytes(b"kept")

    assert one(case, tmp_path / "out", run, Options(skip_existing=True)).skipped
    assert path.read_bytes() == b"kept"


@pytest.mark.parametrize("options", [Options("t1"), Options(labels="msd"), Options(flips=True), Options(overlap=0.25),
    Options(cleanup=True), Options(probabilities=True), Options(allow=("affine",))])  # fmt: skip
def test_what_other_options_made_is_not_taken_for_finished(case, run, tmp_path, options):
    one(case, tmp_path / "out", run)
    path = tmp_path / "out" / f"{case.name}.nii.gz"
    path.write_bytes(b"of other options")
    again = replace(options, skip_existing=True)

    assert not one(case, tmp_path / "out", run, again).skipped
    assert path.read_bytes() != b"of other options"
    assert one(case, tmp_path / "out", run, again).skipped


def test_what_another_model_made_is_not_taken_for_finished(case, run, make_run, tmp_path):
    one(case, tmp_path / "out", run)
    other = make_run("other", seed=1)

    assert not one(case, tmp_path / "out", other, Options(skip_existing=True)).skipped
    assert one(case, tmp_path / "out", other, Options(skip_existing=True)).skipped
    assert not one(case, tmp_path / "out", [run, other], Options(skip_existing=True)).skipped
    assert not one(case, tmp_path / "out", [other, run], Options(skip_existing=True)).skipped
    assert one(case, tmp_path / "out", [other, run], Options(skip_existing=True)).skipped


LAYOUT = r"""
tasks: [brats-gli-pre]
case: 'P[0-9]'
files: {flair: '{case}_FIRST', t1: '{case}_SECOND'}
"""


def test_a_sequence_that_arrives_later_is_used(case, run, tmp_path):
    late = image(case, "t1ce")
    late.rename(tmp_path / late.name)
    assert one(case, tmp_path / "out", run).missing == ("t1ce",)
    (tmp_path / late.name).rename(late)

    again = one(case, tmp_path / "out", run, Options(skip_existing=True))
    assert (again.skipped, again.used) == (False, GLIOMA.modalities)
    (tmp_path / "in").mkdir()
    moved = case.rename(tmp_path / "in" / case.name)
    assert one(moved, tmp_path / "out", run, Options(skip_existing=True)).skipped


def test_what_was_taken_for_another_sequence_is_not_taken_for_finished(case, run, tmp_path):
    folder = tmp_path / "in" / "P1"
    folder.mkdir(parents=True)
    for own, name in (("flair", "FIRST"), ("t1", "SECOND")):
        shutil.copy(image(case, own), folder / f"P1_{name}{''.join(image(case, own).suffixes)}")
    layout = tmp_path / "mine.yaml"
    layout.write_text(LAYOUT)
    options = Options(layout=str(layout), skip_existing=True)
    one(folder, tmp_path / "out", run, options)
    assert one(folder, tmp_path / "out", run, options).skipped

    layout.write_text(LAYOUT.replace("_FIRST", "_X").replace("_SECOND", "_FIRST").replace("_X", "_SECOND"))
    assert not one(folder, tmp_path / "out", run, options).skipped


def test_probabilities_that_are_gone_are_written_again(case, run, tmp_path):
    options = Options(probabilities=True, skip_existing=True)
    one(case, tmp_path, run, options)
    (tmp_path / f"{case.name}_probabilities.nii.gz").unlink()
    assert not one(case, tmp_path, run, options).skipped
    assert one(case, tmp_path, run, options).skipped


def test_a_run_may_move_and_be_renamed_between_parts(case, run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "experiment": None}))
    one(case, tmp_path / "out", run)
    assert one(case, tmp_path / "out", run.rename(tmp_path / "moved"), Options(skip_existing=True)).skipped


def test_a_segmentation_of_unknown_origin_is_kept_and_a_damaged_record_is_not_believed(case, run, tmp_path):
    path, record = tmp_path / f"{case.name}.nii.gz", tmp_path / f"{case.name}.json"
    path.write_bytes(b"by hand")
    skipped = one(case, tmp_path, run, Options(skip_existing=True, preview=True, probabilities=True))
    assert skipped.skipped
    assert path.read_bytes() == b"by hand"
    assert skipped.warnings == (
        f"the origin of {path.name} is unknown, as it has no {record.name}; remove it to segment again",
    )
    done = ccsd_here("predict", case, tmp_path, "--model", run, "--skip-existing")
    assert (done.returncode, skipped.warnings[0] in done.stderr) == (0, True)
    for damage in ("", "[]", "{}", "7"):
        record.write_text(damage)
        assert not one(case, tmp_path, run, Options(skip_existing=True)).skipped
    assert path.read_bytes() != b"by hand"


def test_the_record_says_which_model_made_a_segmentation_and_how(case, run, tmp_path):
    outcome = one(case, tmp_path / "mine.nii.gz", run, Options("t2+FLAIR"))
    record = json.loads((tmp_path / "mine.json").read_text())
    (model,) = record["models"]

    assert model == {
        "experiment": "ccsd",
        "seed": 0,
        "model_hash": json.loads((run / "run.json").read_text())["model_hash"],
    }
    assert record["options"]["modalities"] == "flair+t2"
    assert (record["used"], record["missing"]) == (["flair", "t2"], [])
    assert record["volumes_ml"] == outcome.volumes_ml
    assert record["task"] == GLIOMA.label
    assert record["inputs"]["t2"]["sha256"] == sha256(image(case, "t2").read_bytes()).hexdigest()
    assert sorted(record["inputs"]) == ["flair", "t2"]


@pytest.mark.parametrize("order", [(1, 2), (2, 1), (3, 1, 2), (6, 5, 4, 3, 2, 1)])
def test_parts_write_what_one_call_does(made_study, run, tmp_path, order):
    for number in order:
        list(predict([made_study / "phantoms"], tmp_path / "parts", run, Options("t1", part=(number, len(order)))))
    list(predict([made_study / "phantoms"], tmp_path / "whole", run, Options("t1")))

    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "parts")) == 2 * 4 + 1


def test_a_part_segments_its_own_cases_only(made_study, run, tmp_path):
    names = [case.case for case in discover(made_study / "phantoms", GLIOMA)]
    found = list(predict([made_study / "phantoms"], tmp_path / "out", run, Options("t1", part=(2, 2))))

    assert [outcome.case for outcome in found] == names[2:]
    with pytest.raises(UsageError, match="one file for 4 cases"):
        list(predict([made_study / "phantoms"], tmp_path / "x.nii.gz", run, Options(part=(1, 4))))


@pytest.mark.parametrize(("part", "words"), [("0/4", "I from 1"), ("5/4", "I from 1"), ("x", "for example")])
def test_a_part_that_there_is_not_is_rejected_before_any_work(made_study, tmp_path, part, words):
    run, out = made_study / "runs" / "ccsd-s0", tmp_path / "out"
    done = ccsd_here("predict", made_study / "phantoms", out, "--model", run, "--part", part)

    assert (done.returncode, words in done.stderr) == (2, True)
    assert not out.exists()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}

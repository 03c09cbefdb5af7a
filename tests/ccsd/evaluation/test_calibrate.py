"""What validation cases make of a model's confidence, from `ccsd calibrate` to what `ccsd predict` says."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ccsd.cli import app
from ccsd.errors import UsageError
from ccsd.evaluation.calibrate import Point, calibrate, cases_to_calibrate, fitted
from ccsd.evaluation.tables import read_metrics
from ccsd.inference.calibrated import expectations, read_calibration
from ccsd.inference.case import paint_tensor
from ccsd.inference.confidence import confidence
from ccsd.inference.ensemble import read_members
from ccsd.metrics.regions import region_mask
from ccsd.model.weights import file_hash, load_weights, save_weights
from ccsd.packed.pack import pack
from ccsd.records import Calibration, Curve
from ccsd.study import CALIBRATION_FILE
from preprocess.dataset import read_fingerprint
from preprocess.errors import InputError
from support.tasks import GLIOMA

CURVE = {"sequences": 2, "patients": 40, "seen": (0, 1), "confidence": (0, 1)}
CURVE |= {"expected": (0.2, 0.8), "low": (0, 0.7), "high": (0.5, 0.9)}


@pytest.fixture
def run(make_run: Callable[..., Path], made_study: Path) -> Path:
    return known(make_run("painter"), made_study)


def known(run: Path, study: Path) -> Path:
    """Let a run have been trained on the data of the study."""
    record = json.loads((run / "run.json").read_text())
    record["data_hash"] = read_fingerprint(study / "data")["data_hash"]
    (run / "run.json").write_text(json.dumps(record))
    shutil.copy(study / "data" / "split.tsv", run)
    return run


def calibrated(run: Path, **changes: Any) -> None:
    """Write a calibration whose numbers are known."""
    members = read_members(run)
    about = {"format": 1, "model_hash": members[0].record.model_hash, "task": members[0].config.task.label}
    about |= {
        "level": 0.9,
        "cases": 44,
        "patients": 40,
        "settings": {"overlap": 0.5, "flips": False, "painted": "brain"},
    }
    curves = tuple(Curve(region=region, **CURVE) for region in ("WT", "ET"))
    Calibration(**{**about, "curves": curves, **changes}).write(run)


def said(*words: object) -> str:
    """Return what a command prints."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output


def test_confidence_is_the_dice_of_voxels_that_are_as_often_tumour_as_is_said() -> None:
    rng = np.random.default_rng(0)
    sure = torch.from_numpy(rng.random((3, 20, 20, 20)) ** np.array([3, 1, 9]).reshape(3, 1, 1, 1))
    sure[2].clamp_(max=0.5)
    labels = paint_tensor(sure, GLIOMA)
    painted = np.stack([region_mask(labels.numpy(), region, GLIOMA) for region in GLIOMA.regions])
    drawn = [rng.random(sure.shape) < sure.numpy() for _ in range(20)]
    dice = [2 * (d & painted).sum((1, 2, 3)) / (d.sum((1, 2, 3)) + painted.sum((1, 2, 3))) for d in drawn]
    found = confidence(sure, labels, GLIOMA).numpy()
    assert painted[0].sum() > 2 * (sure[0] > 0.5).sum()  # a region has what is painted of those inside it
    np.testing.assert_allclose(found[:2], np.mean(dice, axis=0)[:2], atol=0.01)
    assert np.isnan(found[2])
    blended = torch.full((3, 4, 4, 4), 1 + 2**-23)
    assert confidence(blended, paint_tensor(blended, GLIOMA), GLIOMA).tolist() == [1, 1, 1]


def test_a_table_has_the_confidence_and_one_of_an_earlier_version_is_read(study: Path) -> None:
    path = study / "evaluation" / "ccsd-s0" / "all" / "metrics.tsv"
    table = read_metrics(path)
    sure = table["confidence"]
    assert sure.between(0, 1).any()
    assert (sure.isna() == (table["volume_mm3"] == 0)).all()
    table.drop(columns="confidence").to_csv(path, sep="\t", index=False)
    assert read_metrics(path)["confidence"].isna().all()
    assert list(read_metrics(path).columns) == list(table.columns)


def test_validation_cases_alone_calibrate_and_predict_says_so(run: Path, made_study: Path, tmp_path: Path) -> None:
    assert "calibrated with 1 case of 1 patient\n" in said(
        "calibrate", run, "--data", made_study / "data", "--set", "evaluation.overlap=0"
    )
    (calibration,) = [Calibration.read(run)]
    split = (run / "split.tsv").read_text()
    (val,) = re.findall(r"(.+)\tval", split)
    out = made_study / "phantoms" / val
    text = said("predict", out, tmp_path, "--model", run, "-m", "flair+t1", "--overlap", "0")
    record = json.loads((tmp_path / f"{val}.json").read_text())
    for region in ("WT", "TC", "ET"):
        (curve,) = [c for c in calibration.curves if (c.region, c.sequences) == (region, 2)]
        expected = np.interp(record["confidence"][region], curve.confidence, curve.expected)
        assert record["expected_dice"][region]["value"] == pytest.approx(expected)
        assert f"{region} {expected:.2f}" in re.search("expected Dice (.*)", text)[1]


def test_expected_dice_goes_everywhere(run: Path, made_study: Path, tmp_path: Path) -> None:
    calibrated(run)
    case = next(path for path in sorted((made_study / "phantoms").iterdir()) if path.is_dir())
    text = said("predict", case, tmp_path, "--model", run, "-m", "flair+t1")
    record = json.loads((tmp_path / f"{case.name}.json").read_text())
    sure = record["confidence"]["WT"]
    value, low, high = 0.2 + 0.6 * sure, 0.7 * sure, 0.5 + 0.4 * sure
    assert record["expected_dice"].keys() == {"WT", "ET"}
    assert record["expected_dice"]["WT"] == pytest.approx({"value": value, "low": low, "high": high, "level": 0.9})
    assert f"expected Dice WT {value:.2f} ({low:.2f} to {high:.2f}), ET " in text
    header, row = ((tmp_path / "predictions.tsv").read_text().splitlines())[:2]
    cells = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert float(cells["WT_expected_dice"]) == pytest.approx(value, abs=1e-3)
    assert float(cells["WT_expected_low"]) == pytest.approx(low, abs=1e-3)
    assert cells["TC_expected_dice"] == ""


@pytest.mark.parametrize("words", [["--overlap", "0.1"], ["--cleanup"], ["-m", "flair"]])
def test_nothing_is_expected_of_what_was_not_calibrated(
    run: Path, made_study: Path, tmp_path: Path, words: list[str]
) -> None:
    calibrated(run)
    case = next(path for path in sorted((made_study / "phantoms").iterdir()) if path.is_dir())
    combination = [] if words[0] == "-m" else ["-m", "flair+t1"]
    text = said("predict", case, tmp_path, "--model", run, *combination, *words)
    assert f"{case.name}: expected Dice" not in text
    assert "expected_dice" not in json.loads((tmp_path / f"{case.name}.json").read_text())
    assert ("calibrated with other settings" in text) == (words[0] != "-m")


def test_what_was_segmented_before_gets_what_a_newer_calibration_expects(
    run: Path, made_study: Path, tmp_path: Path
) -> None:
    case = next(path for path in sorted((made_study / "phantoms").iterdir()) if path.is_dir())
    words = ("predict", case, tmp_path, "--model", run, "-m", "flair+t1", "--skip-existing")
    record, table = tmp_path / f"{case.name}.json", tmp_path / "predictions.tsv"
    said(*words)
    before, labels = json.loads(record.read_text()), (tmp_path / f"{case.name}.nii.gz").stat().st_mtime_ns
    calibrated(run)
    assert "skipped" in said(*words)
    after = json.loads(record.read_text())
    value = 0.2 + 0.6 * before["confidence"]["WT"]
    assert after.pop("expected_dice")["WT"]["value"] == pytest.approx(value)
    assert after == before
    assert f"\t{value:.4g}\t" in table.read_text()
    assert (tmp_path / f"{case.name}.nii.gz").stat().st_mtime_ns == labels
    calibrated(run, curves=(Curve(region="ET", **{**CURVE, "seen": (0.99, 1)}),))
    for _ in range(2):
        said(*words)
        after = json.loads(record.read_text())
        assert after["expected_dice"].keys() == {"ET"}
        (doubt,) = set(after["warnings"]) - set(before["warnings"])
        assert doubt.startswith("expected Dice: that of ET may be too high, because the confidence, ")
        assert doubt in table.read_text()
    calibrated(run)
    said(*words)
    assert json.loads(record.read_text())["warnings"] == before["warnings"]


def test_a_case_that_was_resampled_unlike_those_of_the_calibration_has_none(run: Path) -> None:
    sure = {"WT": 0.5, "TC": 0.5, "ET": float("nan")}
    calibrated(run)
    found = Calibration.read(run)
    assert expectations(found, 2, sure, resampled=False)[0].keys() == {"WT"}
    expected, (doubt,) = expectations(found, 2, sure, resampled=True)
    assert not expected
    assert "resampled, unlike in every case of the calibration" in doubt
    assert expectations(found.model_copy(update={"resampled": True}), 2, sure, resampled=True)[0].keys() == {"WT"}
    assert expectations(None, 2, sure, resampled=True) == ({}, ())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"expected": (0.2, 5)}, "less than or equal to 1"),
        ({"low": (0, 0.9)}, "expected must lie between low and high"),
        ({"high": None}, "same length"),
        ({"expected": (0.2, 0.3, 0.8)}, "same length"),
        ({"confidence": (1, 0)}, "confidence must increase"),
        ({"seen": (float("nan"), 1)}, "finite number"),
        ({"sequences": 0}, "greater than 0"),
    ],
)
def test_numbers_that_are_no_calibration_are_rejected(run: Path, change: dict[str, Any], text: str) -> None:
    calibrated(run)
    path = run / CALIBRATION_FILE
    content = json.loads(path.read_text())
    content["curves"][1] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=rf"calibration\.json: cannot be read as the record.*{text}.*calibrate` again"):
        read_calibration(read_members(run))


def test_a_calibration_travels_in_the_packed_file(run: Path, tmp_path: Path) -> None:
    before = pack([run], tmp_path / "before.ccsd").sha256
    assert read_calibration(read_members(tmp_path / "before.ccsd")) is None
    calibrated(run)
    pack([run], tmp_path / "with.ccsd")
    assert read_calibration(read_members(tmp_path / "with.ccsd")) == Calibration.read(run)
    assert "Calibrated with 44 cases of 40 patients, with an interval for 90 % of such cases" in said(
        "models", tmp_path / "with.ccsd"
    )
    (run / CALIBRATION_FILE).unlink()
    assert pack([run], tmp_path / "after.ccsd").sha256 == before
    calibrated(run)
    pack([tmp_path / "with.ccsd"], tmp_path / "again.ccsd")
    assert (tmp_path / "again.ccsd").read_bytes() == (tmp_path / "with.ccsd").read_bytes()


def test_what_cannot_be_calibrated_or_is_of_others_is_rejected(
    run: Path, make_run: Callable[..., Path], made_study: Path, tmp_path: Path
) -> None:
    data = made_study / "data"
    calibrated(run, model_hash="1" * 64)
    with pytest.raises(UsageError, match=r"calibration.json: belongs to other weights \(model 111111111111\)"):
        read_calibration(read_members(run))
    (run / CALIBRATION_FILE).write_text("{")
    with pytest.raises(UsageError, match="cannot be read as the record of the calibration"):
        read_calibration(read_members(run))
    (run / CALIBRATION_FILE).unlink()
    (run / CALIBRATION_FILE).mkdir()
    with pytest.raises(UsageError, match=r"calibration: Is a directory; copy it again"):
        read_calibration(read_members(run))
    (run / CALIBRATION_FILE).rmdir()
    with pytest.raises(UsageError, match="choose the data with --data"):
        calibrate(run)
    with pytest.raises(UsageError, match="--level 90"):
        calibrate(run, data, level=90)
    with pytest.raises(UsageError, match="calibrate the run and pack it again"):
        calibrate(pack([run], tmp_path / "run.ccsd").path, data)
    stranger = make_run("stranger", 1)
    with pytest.raises(UsageError, match=r"split\.tsv is missing"):
        calibrate(stranger, data)
    shutil.copy(data / "split.tsv", stranger)
    with pytest.raises(UsageError, match=r"not the data that .*stranger was trained on"):
        calibrate(stranger, data)
    known(stranger, made_study)
    (stranger / "split.tsv").write_text((run / "split.tsv").read_text().replace("\tval", "\ttrain"))
    with pytest.raises(UsageError, match="do not calibrate models of several folds together"):
        calibrate([run, stranger], data)
    with pytest.raises(UsageError, match="stranger: its split has no validation case"):
        calibrate(stranger, data)


def test_everything_goes_by_patient(run: Path, made_study: Path, tmp_path: Path) -> None:
    data = shutil.copytree(made_study / "data", tmp_path / "data")
    members = read_members(run)
    cases = {part: name for name, part in re.findall(r"(.+)\t(train|val)", (run / "split.tsv").read_text())}
    assert list(cases_to_calibrate(members, data)) == [cases["val"]]
    (data / "patients.tsv").write_text(f"case\tpatient\n{cases['val']}\tone\n{cases['train']}\tone\n")
    with pytest.raises(
        UsageError, match="every patient with a validation case has another scan that is used for training"
    ):
        cases_to_calibrate(members, data)
    (data / "patients.tsv").unlink()
    shutil.rmtree(data / f"{cases['val']}.zarr")
    with pytest.raises(InputError, match=f"converted cases are missing: {cases['val']}"):
        cases_to_calibrate(members, data)

    found = [Point(f"scan{number}", "t2", 1, "WT", number / 20, number / 20) for number in range(18)]
    for own, has_interval in ((9, True), (8, False)):
        patients = {point.case: f"P{number % own}" for number, point in enumerate(found)}
        calibration = fitted(found, patients, members, members[0].config.evaluation, 0.9)
        assert (calibration.cases, calibration.patients, calibration.curves[0].patients) == (18, own, own)
        assert (calibration.curves[0].low is not None) == has_interval


def test_a_model_that_paints_nothing_is_calibrated_to_say_nothing(
    make_run: Callable[..., Path], made_study: Path
) -> None:
    run = known(make_run("blank", evaluation={"overlap": 0}), made_study)
    weights, words = load_weights(run / "model.safetensors")
    weights["decoder.head.bias"].fill_(-1e3)
    save_weights(run / "model.safetensors", weights, words)
    record = json.loads((run / "run.json").read_text()) | {"model_hash": file_hash(run / "model.safetensors")}
    (run / "run.json").write_text(json.dumps(record))
    text = said("calibrate", run, "--data", made_study / "data")
    assert "blank: segments nothing in any validation case" in text
    assert "calibrated with 0 cases" in text
    found = read_calibration(read_members(run))
    assert found is not None
    assert not found.curves


def test_runs_together_have_a_calibration_of_their_own(
    run: Path, make_run: Callable[..., Path], made_study: Path
) -> None:
    other = known(make_run("other", 1), made_study)
    done = calibrate([run, other], made_study / "data", ["evaluation.overlap=0"])
    assert done.path.parent == run
    assert read_calibration(read_members([run, other])) == done.calibration
    assert read_calibration(read_members(run)) is None
    assert read_calibration(read_members([other, run])) is None
    assert "needs 9" in done.notes[0]

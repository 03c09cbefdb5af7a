"""What is written beside a segmentation: CASE.json and its schema, predictions.tsv, CASE.png; what a kill leaves."""

import csv
import json
import shutil
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest

import ccsd.cli.predict as command
from ccsd.inference import predict as module
from ccsd.inference.finished import read_record
from ccsd.inference.options import Options
from ccsd.inference.predict import predict
from ccsd.inference.preview import draw_preview
from ccsd.inference.record import PredictionRecord
from ccsd.inference.table import columns, table_rows
from preprocess import files
from preprocess.case import prepare
from preprocess.source.layouts import discover
from support import ROOT
from support.processes import ccsd_here
from support.tasks import GLIOMA

SCHEMA = json.loads((ROOT / "workflow/schemas/prediction.schema.json").read_text())
WITHOUT_UNIT = {"format", "axial_slice", "overlap", "seed", "fold", "confidence", "value", "low", "high", "level"}


@pytest.fixture
def run(make_run: Any) -> Path:
    """Return a model that paints much."""
    return make_run("painter")


@pytest.fixture
def case(made_study: Path, tmp_path: Path) -> Path:
    source = next(p for p in sorted((made_study / "phantoms").iterdir()) if "BraTS20" in p.name)
    return Path(shutil.copytree(source, tmp_path / "in" / source.name))


def one(*arguments: Any) -> Any:
    (outcome,) = predict([arguments[0]], *arguments[1:])
    return outcome


def read_table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.tsv").read_text().splitlines(), delimiter="\t"))


def test_the_record_keeps_to_its_schema_and_to_the_label_map(case: Path, run: Path, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    outcome = one(case, tmp_path / "out", run, Options("flair+t1"))
    record = json.loads((tmp_path / "out" / f"{case.name}.json").read_text())
    jsonschema.validate(record, SCHEMA)
    for damaged in (
        {**record, "format": 1},
        {**record, "more": 1},
        {k: v for k, v in record.items() if k != "lesions"},
        {**record, "models": [{"experiment": "ccsd", "seed": 0}]},
        {**record, "models": []},
        {**record, "inputs": {"t1": {**record["inputs"]["t1"], "sha256": "x"}}},
        {**record, "volumes_mm3": {**record["volumes_mm3"], "WT": -1.0}},
        {**record, "outside_brain_share": 46.0},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(damaged, SCHEMA)

    volume = nib.load(outcome.path)
    labels = np.asarray(volume.dataobj)
    voxel = abs(np.linalg.det(volume.affine[:3, :3]))
    numbers = {name: int(number) for number, name in record["labels"].items()}
    assert numbers == {"NCR": 1, "ED": 2, "ET": 4}
    for region, classes in GLIOMA.regions.items():
        mask = np.isin(labels, [numbers[name] for name in classes])
        lesions = record["lesions"][region]
        assert mask.any()
        assert record["volumes_mm3"][region] == pytest.approx(np.count_nonzero(mask) * voxel)
        assert sum(lesion["volume_mm3"] for lesion in lesions) == pytest.approx(np.count_nonzero(mask) * voxel)
        weighed = sum(np.array(lesion["centroid_mm"]) * lesion["volume_mm3"] for lesion in lesions)
        where = nib.affines.apply_affine(volume.affine, np.argwhere(mask).mean(axis=0))
        np.testing.assert_allclose(weighed / record["volumes_mm3"][region], where, atol=1e-3)


def test_every_number_says_its_unit() -> None:
    def numbers(schema: dict[str, Any]) -> Any:
        for part in [schema, *schema.get("$defs", {}).values()]:
            for name, value in part.get("properties", {}).items():
                kinds = json.dumps(value)
                if '"number"' in kinds or '"integer"' in kinds:
                    yield name

    found = set(numbers(SCHEMA))
    assert {"volume_mm3", "centroid_mm", "longest_diameter_mm", "volumes_ml", "spacing_mm"} <= found
    assert {name for name in found if not name.endswith(("_mm", "_mm3", "_ml", "_share"))} == WITHOUT_UNIT


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("step", [1, 2])  # of three files
@pytest.mark.parametrize("over", [False, True], ids=["first", "over-another"])
def test_a_kill_never_leaves_a_label_map_with_what_belongs_to_another(
    case: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, over: bool
) -> None:
    if over:
        one(case, tmp_path / "out", run, Options("t1", probabilities=True))
    path = tmp_path / "out" / f"{case.name}.nii.gz"
    wanted = Options("t2", probabilities=True, skip_existing=True)
    original, calls = files._take_place, count()

    def killed(temporary: Path, place: Path) -> None:
        if next(calls) == step:
            raise Killed
        original(temporary, place)

    monkeypatch.setattr(files, "_take_place", killed)
    monkeypatch.setattr(module, "write_table", lambda *_: None)  # which a process that is killed does not write
    with pytest.raises(Killed):
        one(case, tmp_path / "out", run, wanted)
    monkeypatch.undo()
    record = read_record(path)
    assert not path.exists() or (record is not None and record.options.modalities == "t1")
    assert table_rows(tmp_path / "out", [case.name], GLIOMA)[0]["state"] == "pending"

    again = one(case, tmp_path / "out", run, wanted)
    assert not again.skipped
    names = {f"{case.name}{end}" for end in (".nii.gz", ".json", "_probabilities.nii.gz")}
    assert {item.name for item in path.parent.iterdir()} == {*names, "predictions.tsv"}
    assert one(case, tmp_path / "out", run, wanted).skipped


def test_what_belonged_to_an_earlier_segmentation_alone_goes_with_it(case: Path, run: Path, tmp_path: Path) -> None:
    one(case, tmp_path / "out", run, Options("t1", preview=True, probabilities=True))
    (tmp_path / "out" / f"{case.name}_mine.png").touch()
    one(case, tmp_path / "out", run, Options("t2"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{case.name}.nii.gz", f"{case.name}.json", f"{case.name}_mine.png", "predictions.tsv"
    }  # fmt: skip
    assert not one(case, tmp_path / "out", run, Options("t2", preview=True, skip_existing=True)).skipped
    assert one(case, tmp_path / "out", run, Options("t2", skip_existing=True)).skipped


def test_the_table_has_every_case_and_why_one_failed(made_study: Path, run: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(made_study / "phantoms", tmp_path / "in"))
    broken, *others = discover(source, GLIOMA)
    content = broken.images["t1"].read_bytes()
    broken.images["t1"].write_bytes(content[:100])
    out, options = tmp_path / "out", Options("t1", skip_existing=True)
    list(predict([source], out, run, Options("t1", part=(1, 2))))
    first = read_table(out)
    list(predict([source], out, run, options))
    second = read_table(out)
    broken.images["t1"].write_bytes(content)
    list(predict([source], out, run, options))
    third = read_table(out)

    assert list(first[0]) == columns(GLIOMA)
    assert [row["case"] for row in first] == [broken.case, *(case.case for case in others)]
    assert [row["state"] for row in first] == ["failed", "segmented", "pending", "pending"]
    assert [row["state"] for row in second] == ["failed", *["segmented"] * 3]
    assert [row["state"] for row in third] == ["segmented"] * 4
    assert "truncated" in second[0]["reason"]
    assert not second[0]["segmentation"]
    record = PredictionRecord.model_validate_json((out / f"{others[0].case}.json").read_bytes())
    row = second[1]
    assert float(row["WT_mm3"]) == pytest.approx(record.volumes_mm3["WT"])
    assert (int(row["ET_lesions"]), row["used"]) == (len(record.lesions["ET"]), "t1")
    assert float(row["WT_longest_mm"]) == pytest.approx(record.lesions["WT"][0].longest_diameter_mm, rel=1e-5)
    assert not (out / ".failed").exists()


def test_the_table_is_that_of_the_folder_and_written_when_interrupted(
    made_study: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, _ = discover(made_study / "phantoms", GLIOMA)
    out = tmp_path / "out"
    list(predict([first.images["t1"]], out, run))
    (out / f"{third.case}.nii.gz").write_bytes(b"by hand")
    shutil.copy(out / f"{first.case}.json", out / ".tmp-3f2a9c1e-other.json")  # as a kill leaves it
    shutil.copy(out / f"{first.case}.nii.gz", out / ".tmp-3f2a9c1e-other.nii.gz")
    assert [row["state"] for row in read_table(out)] == ["segmented"]

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_predict_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(predict([case.images["t1"] for case in (second, third)], out, run, Options(skip_existing=True)))
    states = {row["case"]: row["state"] for row in read_table(out)}
    assert states == {first.case: "segmented", second.case: "pending", third.case: "unrecorded"}


def test_exit_codes(made_study: Path, case: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def code(*arguments: object) -> int:
        return ccsd_here("predict", *arguments, "--model", run).returncode

    assert code(case, tmp_path / "out", "-m", "t1") == 0
    assert code(case, tmp_path / "out", "-m", "t1", "--skip-existing") == 0
    assert code(case, tmp_path / "out", "--labels", "nonsense") == 2
    assert code(tmp_path / "nothing", tmp_path / "out") == 2
    assert code(case, tmp_path / "out", "--nonsense") == 2
    next(case.glob("*t1ce*")).write_bytes(b"")
    other = shutil.copytree(made_study / "phantoms" / "BraTS-GLI-00000-000", case.parent / "BraTS-GLI-00000-000")
    assert code(case.parent, tmp_path / "both", "-m", "t1ce") == 2  # and yet
    assert (tmp_path / "both" / f"{other.name}.nii.gz").is_file()
    for error, expected in ((KeyboardInterrupt, 130), (MemoryError, 1), (OSError, 1)):
        monkeypatch.setattr(module, "_predict_case", lambda *_, error=error: (_ for _ in ()).throw(error))
        assert code(case, tmp_path / "out", "-m", "t1") == expected
    assert command.predict.__doc__


def test_the_preview_shows_each_sequence_and_region_at_its_size(case: Path, tmp_path: Path) -> None:
    for path in case.glob("*.nii*"):
        volume = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(volume.dataobj), volume.affine @ np.diag([1, 1, 3, 1])), path)
    (files_,) = discover(case, GLIOMA)
    prepared = prepare(files_)
    assert prepared.label is not None

    def picture(labels: Any, *used: str) -> np.ndarray:
        drawn = draw_preview(prepared, labels, case.name, used)
        assert drawn == draw_preview(prepared, labels, case.name, used)
        return np.asarray(matplotlib.image.imread(BytesIO(drawn)))[..., :3]

    four, two = picture(prepared.label, *GLIOMA.modalities), picture(prepared.label, "flair", "t2")
    empty = picture(np.zeros_like(prepared.label), "flair", "t2")
    assert draw_preview(prepared, prepared.label, r"a$\frac$b", ("t2",))  # a name is no formula
    assert four.shape[1] == two.shape[1]
    assert four.shape[0] > 1.5 * two.shape[0]
    for red, green, blue in ((213, 94, 0), (86, 180, 233), (240, 228, 66)):  # of the outlines and the legend

        def pixels(image: np.ndarray, rgb: Any = (red, green, blue)) -> int:
            return np.count_nonzero((np.abs(image * 255 - np.array(rgb)) < 12).all(axis=-1))

        assert pixels(two) > 3 * pixels(empty) > 0
    coronal = two[100:300, two.shape[1] // 3 + 20 : 2 * two.shape[1] // 3].sum(axis=-1) > 0.3
    across, up = (np.ptp(np.flatnonzero(coronal.any(axis=axis))) for axis in (0, 1))
    depth, _, width = (size * side for size, side in zip(prepared.z.shape[1:], (3, 1, 1), strict=True))
    assert up / across == pytest.approx(depth / width, rel=0.25)

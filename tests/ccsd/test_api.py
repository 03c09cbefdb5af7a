"""`ccsd.load_model`, `Model.predict`, `ccsd.score`: the numbers of the command line, from files, images and arrays."""

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import ccsd
from ccsd.evaluation import read_metrics
from ccsd.evaluation.folders import evaluate_folders
from preprocess.source.layouts import discover
from support.processes import ccsd_here
from support.tasks import GLIOMA


@pytest.fixture(scope="module")
def model(made_study: Path) -> ccsd.Model:
    return ccsd.load_model(str(made_study / "runs" / "ccsd-s0"), "cpu")


@pytest.fixture(scope="module")
def paths(made_study: Path) -> dict[str, Path]:
    """Return images whose file names say that enhancing tumour has the number 4."""
    case = next(case for case in discover(made_study / "phantoms", GLIOMA) if "BraTS20" in case.case)
    return {name: case.images[name] for name in ("t1ce", "flair", "t2")}


@pytest.fixture(scope="module")
def written(made_study: Path, paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the command writes for them."""
    out = tmp_path_factory.mktemp("command") / "out.nii.gz"
    run = made_study / "runs" / "ccsd-s0"
    done = ccsd_here("predict", *paths.values(), out, "--model", run, "--probabilities", "--preview")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f": preview {out.with_name('out.png')}\n{out}\n")
    return out


def same_as_the_command(found: ccsd.Prediction, written: Path) -> None:
    volume, record = nib.load(written), json.loads(written.with_name("out.json").read_text())
    np.testing.assert_array_equal(found.labels, np.asarray(volume.dataobj))
    np.testing.assert_array_equal(found.affine, volume.affine)
    probabilities = np.asarray(nib.load(written.with_name("out_probabilities.nii.gz")).dataobj)
    np.testing.assert_array_equal(np.stack(list(found.probabilities.values()), axis=-1), probabilities)
    assert (found.volumes_ml, found.volumes_mm3) == (record["volumes_ml"], record["volumes_mm3"])
    assert {r: [x.model_dump(mode="json") for x in found.lesions[r]] for r in GLIOMA.regions} == record["lesions"]
    assert (list(found.used), list(found.warnings)) == (record["used"], record["warnings"])


def test_a_model_has_the_names_that_the_command_takes(made_study: Path, tmp_path: Path) -> None:
    """A run, a packed file, and what is shipped."""
    packed = tmp_path / "one.ccsd"
    assert ccsd_here("pack", made_study / "runs" / "ccsd-s0", packed).returncode == 0
    for name in (packed, str(packed), "phantom"):
        assert ccsd.load_model(name, "cpu").regions == tuple(GLIOMA.regions)


def test_files_give_what_the_command_writes_byte_for_byte(
    model: ccsd.Model, paths: dict[str, Path], written: Path, tmp_path: Path
) -> None:
    found = model.predict({name.upper(): str(path) for name, path in paths.items()})
    same_as_the_command(found, written)
    assert np.any(found.labels)
    assert found.label_names == {1: "NCR", 2: "ED", 4: "ET"}
    found.save(tmp_path / "out.nii.gz", probabilities=True, preview=True)
    for path in written.parent.iterdir():
        theirs, ours = path.read_bytes(), (tmp_path / path.name).read_bytes()
        if path.suffix == ".json":  # the command names all files of the case, in the order in which it finds them
            assert {**json.loads(theirs), "missing": ["t1"]} == {**json.loads(ours), "missing": ["t1"]}
        else:
            assert theirs == ours, path.name


def test_images_in_memory_give_the_same_as_files(model: ccsd.Model, paths: dict[str, Path], written: Path) -> None:
    images: dict[str, Any] = {name: nib.load(path) for name, path in paths.items()}
    kept = np.asarray(images["flair"].dataobj).copy()
    same_as_the_command(model.predict(images, labels="brats2020"), written)
    arrays: dict[str, Any] = {name: (np.asarray(i.dataobj), i.affine) for name, i in images.items()}
    found = model.predict({**arrays, "t1ce": paths["t1ce"]})
    same_as_the_command(found, written)
    assert found.record("x", ["x.nii.gz"]).inputs["flair"].file is None
    np.testing.assert_array_equal(arrays["flair"][0], kept)
    assert model.predict(arrays).label_names == {1: "NCR", 2: "ED", 3: "ET"}  # nobody says the numbers of the input


def test_an_image_that_its_header_scales_is_read_as_its_file_is(model: ccsd.Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = nib.Nifti1Image(rng.integers(0, 4000, (24, 24, 24)).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.0237, -3.1)
    image.to_filename(tmp_path / "a_t2.nii.gz")
    by_path, by_image = (
        model.predict({"t2": what}) for what in (tmp_path / "a_t2.nii.gz", nib.load(tmp_path / "a_t2.nii.gz"))
    )
    np.testing.assert_array_equal(by_path.probabilities["WT"], by_image.probabilities["WT"])


def volume(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(100, 20, shape or (16, 16, 16)).astype(np.float32)


def holed() -> np.ndarray:
    array = volume()
    array[4:12, 4:12, 4:12] = np.nan
    return array


EYE = np.eye(4)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({}, "no image; give at least one of flair, t1, t1ce, t2"),
        ("P1_t1.nii.gz", "images: got str; give a mapping such as {'flair': path}"),
        ({0: (volume(), EYE)}, "give a mapping"),
        ({"pd": (volume(), EYE)}, "unknown modality 'pd'; allowed: flair"),
        ({"flair": (volume(), EYE), "T2F": (volume(), EYE)}, "'flair' and 'T2F' are the same sequence flair"),
        ({"t1": (volume(), EYE), "t2": (volume(16, 16, 15), EYE)}, r"t2 has shape \(16, 16, 15\), t1 has"),
        ({"t1": (volume(), EYE), "t2": (-volume(), np.diag([2, 1, 1, 1]))}, "t2 is up to 16 mm away from t1"),
        ({"t1": (volume(16, 16, 16, 2), EYE)}, r"t1: shape \(16, 16, 16, 2\); expected one volume with three axes"),
        ({"t1": (volume(16, 16), EYE)}, "expected one volume with three axes"),
        ({"t1": (holed(), EYE)}, "t1 has 512 voxels that are not finite"),
        ({"t1": (np.full((9, 9, 9), np.nan), EYE)}, "all images are empty or copies|has no finite voxels"),
        ({"t1": (volume(), np.eye(3))}, "t1: the affine must be 4 x 4 numbers"),
        ({"t1": (volume(), "here")}, "t1: the affine must be 4 x 4 numbers"),
        ({"t1": (volume(), np.diag([1, 1, 1, 5]))}, "the last row 0, 0, 0, 1"),
        ({"t1": (volume(), np.diag([0, 0, 0, 1]))}, "affine does not give the axes a direction"),
        ({"t1": (volume() > 0, EYE)}, "t1: holds bool voxels"),
        ({"t1": (volume() * 1j, EYE)}, "t1: holds complex64 voxels"),
        ({"t1": volume()}, "t1: got ndarray; expected a path, a nibabel image"),
        ({"t1": None}, "t1: got NoneType; expected"),
        ({"t1": "nowhere_t1.nii.gz"}, "nowhere_t1.nii.gz"),
    ],
)  # fmt: skip
def test_images_that_cannot_be_used_are_rejected(model: ccsd.Model, images: Any, words: str) -> None:
    with pytest.raises((ccsd.UsageError, ccsd.InputError), match=words):
        model.predict(images)


@pytest.mark.parametrize("how", [{"labels": "x"}, {"overlap": 1.0}, {"allow": ["nonsense"]}])
def test_options_that_cannot_be_met_are_rejected(model: ccsd.Model, how: dict[str, Any]) -> None:
    with pytest.raises((ccsd.UsageError, ccsd.InputError), match=r"allowed|below 1"):
        model.predict({"t1": (volume(), EYE)}, **how)


def test_a_model_or_a_file_name_that_there_is_not(model: ccsd.Model, tmp_path: Path) -> None:
    with pytest.raises(ccsd.UsageError, match="not a finished run"):
        ccsd.load_model(tmp_path)
    with pytest.raises(ccsd.UsageError, match="no model"):
        ccsd.load_model([])
    with pytest.raises(ccsd.UsageError, match="must end in"):
        model.predict({"t1": (volume(), EYE)}).save(tmp_path / "out.png")


def test_an_image_whose_voxels_are_gone_is_rejected(model: ccsd.Model) -> None:
    with BytesIO(nib.Nifti1Image(volume(), EYE).to_bytes()) as stream:
        closed = nib.Nifti1Image.from_stream(stream)
    with pytest.raises(ccsd.InputError, match="t1: the voxels of the image cannot be read"):
        model.predict({"t1": closed})


def test_a_prediction_is_shown_in_a_line_has_no_equal_and_cannot_be_changed(model: ccsd.Model) -> None:
    first, second = (model.predict({"t1": (volume(), EYE)}) for _ in range(2))
    assert len(repr(first)) < 1000
    assert len({first, second}) == 2
    for array in (first.labels, first.probabilities["WT"]):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_several_models_are_one(made_study: Path, make_run: Any, paths: dict[str, Path]) -> None:
    runs = [made_study / "runs" / "ccsd-s0", make_run("other", seed=1)]
    both, first, second = (ccsd.load_model(which, "cpu").predict(paths).probabilities["WT"] for which in (runs, *runs))
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-6)


def test_scores_are_those_of_the_command(
    model: ccsd.Model, made_study: Path, paths: dict[str, Path], written: Path, tmp_path: Path
) -> None:
    reference = next(paths["t1ce"].parent.glob("*_seg.nii*"))
    (tmp_path / "p").mkdir()
    case = paths["t1ce"].parent.name
    (tmp_path / "p" / f"{case}.nii.gz").write_bytes(written.read_bytes())
    table = read_metrics(evaluate_folders(tmp_path / "p", paths["t1ce"].parent, tmp_path / "out", GLIOMA))
    found = ccsd.score(model.predict(paths), reference)

    assert list(found) == list(GLIOMA.regions)
    for row in table.to_dict("records"):
        scores = found[row["region"]]
        assert {name: row[name] for name in ("dice", "hd95", "nsd")} == pytest.approx(
            {name: scores[name] for name in ("dice", "hd95", "nsd")}, rel=1e-8
        )
    image = nib.load(reference)
    array = (np.asarray(image.dataobj), image.affine)
    assert ccsd.score(array, array, GLIOMA, ref_labels="brats2020")["ET"]["dice"] == 1
    empty = (np.zeros_like(array[0]), image.affine)
    assert ccsd.score(empty, array, "brats-gli-pre", ref_labels="brats2020", hd95_penalty=7)["WT"]["hd95"] == 7


def test_a_prediction_is_scored_by_its_own_classes_only(model: ccsd.Model) -> None:
    found = model.predict({"t1": (volume(), EYE)})
    assert ccsd.score(found, found)["WT"]["dice"] == 1
    for arguments in ((found, (found.labels, EYE)), ((found.labels, EYE), found)):
        with pytest.raises(ccsd.UsageError, match="brats-gli-pre cannot be scored with the task brats-ped"):
            ccsd.score(*arguments, "brats-ped", ref_labels="brats-ped2024")


def test_what_cannot_be_scored_is_rejected(paths: dict[str, Path]) -> None:
    image = nib.load(next(paths["t1ce"].parent.glob("*_seg.nii*")))
    array = (np.asarray(image.dataobj), image.affine)
    for arguments, how, words in (
        ((array, array), {}, "nothing shows what the reference's numbers mean; choose one of brats2023"),
        ((array, array), {"ref_labels": "x"}, "unknown label convention; allowed: brats2023"),
        ((array, array), {"ref_labels": "brats2023"}, "reference: wrong label values: 4"),
        ((array, (array[0][:-1], array[1])), {"ref_labels": "brats2020"}, "voxels but"),
        (
            (array, (array[0], np.diag([1, 1, 2, 1]))),
            {"ref_labels": "brats2020"},
            "mm apart according to their headers|voxels but",
        ),
        ((array, array, "nonsense"), {}, "task nonsense: unknown"),
        ((array, array), {"ref_labels": "brats2020", "nonsense": 1}, "nonsense: unknown key"),
    ):
        with pytest.raises((ccsd.UsageError, ccsd.InputError), match=words):
            ccsd.score(*arguments, **how)


def test_importing_the_package_is_cheap_and_what_it_has_is_known() -> None:
    code = "import ccsd, sys; print(*sys.modules); assert not hasattr(ccsd, 'nonsense') and 'load_model' in dir(ccsd)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "ccsd.api", "pydantic"} & set(done.stdout.split())
    assert all(getattr(ccsd, name) is not None for name in ccsd.__all__)

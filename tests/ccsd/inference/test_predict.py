"""`ccsd predict`: any subset, any orientation and spacing, many cases, and inputs that cannot be used."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from ccsd.errors import UsageError
from ccsd.inference import case as module
from ccsd.inference.labelmaps import read_labelmap
from ccsd.inference.options import Options
from ccsd.inference.predict import cases_to_predict, predict
from preprocess.source.layouts import discover
from preprocess.store.reader import CaseStore
from support import ROOT
from support.predicting import image, one
from support.tasks import GLIOMA


def trained_at(run, spacing):
    """Write another spacing into the model's record."""
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "spacing_mm": spacing}))


def spacing_as(volume, sides):
    """Return the diagonal that gives a volume of 1 mm the spacing (R, A, S), whatever its own axes."""
    axes = nib.io_orientation(volume.affine)[:, 0].astype(int)
    return [*(sides[axis] for axis in axes), 1]


def test_segmentation_has_the_space_and_labels_of_the_input(case, run, tmp_path):
    outcome = one(case, tmp_path / "out.nii.gz", run)
    written, source = nib.load(tmp_path / "out.nii.gz"), nib.load(image(case, "t1"))

    assert outcome.error is None
    assert outcome.used == ("flair", "t1", "t1ce", "t2")
    assert written.shape == source.shape
    np.testing.assert_allclose(written.affine, source.affine)
    assert set(np.unique(written.dataobj)) <= {0, 1, 2, 4}


@pytest.mark.slow
def test_prediction_imports_nothing_of_the_report(case, run, tmp_path, imported_by):
    found = imported_by("predict", case, tmp_path / "out.nii.gz", "--model", run)

    assert "torch" in found
    assert not found & {"matplotlib", "jinja2", "pandas", "pyarrow", "monai", "deepspeed"}


def test_prediction_equals_that_of_the_evaluation(evaluated_study, run, tmp_path):
    for path in (evaluated_study / "evaluation" / "ccsd-s0" / "all" / "predictions" / "flair+t2").glob("*.nii.gz"):
        name = path.name.removesuffix(".nii.gz")
        one(evaluated_study / "phantoms" / name, tmp_path / "out", run, Options("t2,FLAIR"))
        meta = CaseStore(evaluated_study / "data", name).meta
        ours = read_labelmap(tmp_path / "out" / path.name, meta.label_convention).labels[meta.geometry.slices]
        theirs = read_labelmap(path, meta.label_convention).labels[meta.geometry.slices]

        # The box differs when other sequences set it, so windows and borders may differ, but hardly any voxel.
        assert np.mean(ours != theirs) < 0.01


def test_files_make_cases_by_their_names(made_study, run, tmp_path):
    cases = discover(made_study / "phantoms", GLIOMA)[:2]
    files = [cases[0].images["t1"], cases[1].images["flair"], cases[0].images["t2"]]
    found = list(predict(files, tmp_path / "out", run))
    folder = one(cases[0].images["t1"].parent, tmp_path / "same.nii.gz", run, Options("t1+t2"))

    assert [(outcome.case, outcome.used) for outcome in found] == [
        (cases[0].case, ("t1", "t2")),
        (cases[1].case, ("flair",)),
    ]
    assert found[0].volumes_ml == folder.volumes_ml


def test_what_is_missing_is_said_and_its_files_are_never_opened(case, run, tmp_path):
    image(case, "t1ce").unlink()
    image(case, "flair").write_bytes(b"not an image")
    outcome = one(case, tmp_path / "out", run, Options("t1+t2"))

    assert outcome.used == ("t1", "t2")
    assert outcome.missing == ("t1ce",)
    assert outcome.error is None


def test_a_sequence_with_a_name_of_its_own_is_not_missed_without_a_word(case, run, tmp_path, capsys):
    image(case, "t1ce").rename(case / "T1post.nii.gz")
    outcome = one(case, tmp_path / "out", run)

    assert outcome.missing == ("t1ce",)
    assert "not used, because the name matches no layout" in (said := capsys.readouterr().err)
    assert str(case / "T1post.nii.gz") in said
    for path in case.glob("*_*.nii*"):
        path.unlink()
    with pytest.raises(UsageError, match=r"no sequence recognised.*name matches no layout.*T1post\.nii\.gz"):
        one(case, tmp_path / "out", run)


def test_segmentation_in_the_folder_is_never_opened(case, run, tmp_path):
    image(case, "seg").write_bytes(b"not an image")

    assert one(case, tmp_path / "out", run).error is None


def test_orientation_of_the_input_does_not_matter(case, run, tmp_path):
    one(case, tmp_path / "straight.nii.gz", run)
    straight = nib.load(tmp_path / "straight.nii.gz")
    for path in case.glob("*.nii*"):
        volume = nib.load(path)
        turned = volume.as_reoriented([[1, -1], [2, 1], [0, -1]])
        nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    one(case, tmp_path / "turned.nii.gz", run)
    turned = nib.load(tmp_path / "turned.nii.gz")
    back = nib.as_closest_canonical(turned)

    assert turned.shape != straight.shape or not np.allclose(turned.affine, straight.affine)
    np.testing.assert_array_equal(back.dataobj, nib.as_closest_canonical(straight).dataobj)


def test_other_spacing_is_resampled_and_comes_back_on_its_own_grid(case, run, tmp_path):
    for path in case.glob("*.nii*"):
        volume = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(volume.dataobj)[:, :, ::2], volume.affine @ np.diag([1, 1, 2, 1])), path)
    outcome = one(case, tmp_path / "out.nii.gz", run)

    assert any("1 x 1 x 2 mm were resampled" in text for text in outcome.warnings)
    assert not any("nothing is resampled" in text for text in outcome.warnings)
    assert nib.load(tmp_path / "out.nii.gz").shape == nib.load(image(case, "t1")).shape


def test_case_of_the_training_s_spacing_is_not_resampled_whatever_the_order_of_its_axes(case, run, tmp_path):
    trained_at(run, [2.0, 1.0, 0.5])  # from down to up, back to front, left to right
    for path in case.glob("*.nii*"):
        volume = nib.load(path)
        spaced = nib.Nifti1Image(np.asarray(volume.dataobj), volume.affine @ np.diag(spacing_as(volume, (0.5, 1, 2))))
        turned = spaced.as_reoriented([[1, 1], [2, -1], [0, 1]])
        nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    outcome = one(case, tmp_path / "out.nii.gz", run)

    assert outcome.error is None
    assert not any("resampled" in text for text in outcome.warnings)


def test_spacing_that_lies_along_another_axis_is_resampled(case, run, tmp_path, monkeypatch):
    shapes = []
    original = module.predict_probabilities
    monkeypatch.setattr(
        module,
        "predict_probabilities",
        lambda net, image, *a, **k: shapes.append(image.shape) or original(net, image, *a, **k),
    )
    plain = one(case, tmp_path / "plain.nii.gz", run)
    trained_at(run, [2.0, 1.0, 0.5])
    outcome = one(case, tmp_path / "out.nii.gz", run)
    (_, depth, height, width), resampled = shapes

    assert plain.error is outcome.error is None
    assert tuple(resampled) == (4, round(depth / 2), height, 2 * width)
    assert any("1 x 1 x 1 mm were resampled to the training's 0.5 x 1 x 2 mm" in text for text in outcome.warnings)


def test_volumes_do_not_depend_on_the_grid_that_the_network_sees(case, run, tmp_path):
    straight = one(case, tmp_path / "a.nii.gz", run)
    for path in case.glob("*.nii*"):
        volume = nib.load(path)
        fine = np.repeat(np.asarray(volume.dataobj), 2, axis=0)
        affine = volume.affine @ np.diag([0.5, 1, 1, 1])
        affine[:3, 3] -= volume.affine[:3, 0] / 4  # the outer edge of the voxels stays where it was
        nib.save(nib.Nifti1Image(fine, affine), path)
    doubled = one(case, tmp_path / "b.nii.gz", run)
    labels, fine = (np.asarray(nib.load(tmp_path / name).dataobj) for name in ("a.nii.gz", "b.nii.gz"))

    assert doubled.volumes_ml == pytest.approx(straight.volumes_ml, rel=0.05, abs=0.3)
    assert np.mean(np.repeat(labels, 2, axis=0) != fine) < 0.03


def test_model_that_does_not_say_its_spacing_is_rejected(case, run, tmp_path):
    trained_at(run, None)
    with pytest.raises(UsageError, match=r"spacing_mm is missing.*add it"):
        one(case, tmp_path / "out.nii.gz", run)
    assert not (tmp_path / "out.nii.gz").exists()


def test_overlap_of_the_windows_can_be_chosen(case, run, tmp_path, monkeypatch):
    overlaps = []
    original = module.predict_probabilities
    monkeypatch.setattr(
        module, "predict_probabilities", lambda *a, **k: overlaps.append(k["overlap"]) or original(*a, **k)
    )
    one(case, tmp_path / "half.nii.gz", run)
    one(case, tmp_path / "quarter.nii.gz", run, Options(overlap=0.25))

    assert overlaps == [0.5, 0.25]
    with pytest.raises(UsageError, match="--overlap 1"):
        one(case, tmp_path / "none.nii.gz", run, Options(overlap=1.0))


def test_probabilities_flips_labels_and_clean_up_on_request(case, run, tmp_path):
    options = Options(labels="msd", probabilities=True, flips=True, cleanup=True)
    one(case, tmp_path / "out", run, options)
    labels = np.asarray(nib.load(tmp_path / "out" / f"{case.name}.nii.gz").dataobj)
    regions = np.asarray(nib.load(tmp_path / "out" / f"{case.name}_probabilities.nii.gz").dataobj)

    assert regions.shape == (*labels.shape, 3)
    assert 0 <= regions.min() <= regions.max() <= 1
    assert not (labels == 3).any()
    np.testing.assert_array_equal(labels > 0, (regions > 0.5).any(axis=-1))


def test_many_cases_go_on_when_one_cannot_be_read(made_study, run, tmp_path):
    source = shutil.copytree(made_study / "phantoms", tmp_path / "in")
    names = [case.case for case in discover(source, GLIOMA)]
    broken = discover(source, GLIOMA)[0].images["t1"]
    broken.write_bytes(broken.read_bytes()[:100])
    outcomes = {outcome.case: outcome for outcome in predict([source], tmp_path / "out", run, Options("t1+t2"))}

    assert list(outcomes) == names
    assert "truncated" in outcomes[names[0]].error
    written = {path.name for path in (tmp_path / "out").iterdir()}
    expected = {f"{name}{ending}" for name in names[1:] for ending in (".nii.gz", ".json")}
    assert written == {*expected, "predictions.tsv", ".failed"}


def test_inputs_that_look_wrong_are_told(case, run, tmp_path):
    shutil.copy(image(case, "t1"), image(case, "t2"))
    outcome = one(case, tmp_path / "out", run)

    assert "same image" in " ".join([*outcome.warnings, outcome.error or ""])


def test_brains_are_not_taken_for_heads(case, run, tmp_path):
    assert not any("skull" in text for text in one(case, tmp_path / "out", run).warnings)


def test_what_lies_outside_the_brain_is_not_painted_but_told(case, run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "mean_probabilities", lambda _, x, subsets, *a: torch.ones(1, 3, *x.shape[1:]))
    wrong = one(case, tmp_path / "everywhere", run, Options("flair", probabilities=True))
    monkeypatch.setattr(
        module, "mean_probabilities", lambda _, x, subsets, *a: (x[:1] != 0).float().expand(1, 3, *x.shape[1:]).clone()
    )
    right = one(case, tmp_path / "inside", run, Options("flair"))
    written, brain = (np.asarray(nib.load(path).dataobj) != 0 for path in (wrong.path, image(case, "flair")))

    np.testing.assert_array_equal(written, ndimage.binary_fill_holes(written))
    assert np.all(written[brain])
    assert np.mean(written != brain) < 0.02  # it fills what the brain encloses, and little else
    probabilities = nib.load(tmp_path / "everywhere" / f"{case.name}_probabilities.nii.gz")
    np.testing.assert_array_equal(np.asarray(probabilities.dataobj).any(axis=-1), written)
    assert any("% of the tumour that the model found lay outside the brain" in text for text in wrong.warnings)
    assert not any("outside" in text for text in right.warnings)


def test_raw_scans_lead_to_the_page_that_says_what_to_do(case, run, tmp_path):
    first = image(case, "t1")
    volume = nib.load(first)
    voxels = np.asarray(volume.dataobj)
    trained_at(run, [8.0, 8.0, 8.0])  # so that nothing large is resampled
    for changed, affine, options in (
        (voxels[:-1], volume.affine, Options()),
        (voxels, volume.affine @ np.diag([1, 1, 1.1, 1]), Options()),
        (voxels + 50, volume.affine, Options("t1")),  # whose background is not 0
        (voxels, volume.affine @ np.diag([8, 8, 8, 1]), Options("t1")),  # more than any brain
    ):
        nib.save(nib.Nifti1Image(changed, affine), first)
        outcome = one(case, tmp_path / "out", run, options)
        assert "docs/how-to/raw-scans.md" in " ".join([*outcome.warnings, outcome.error or ""])
    assert (ROOT / "docs/how-to/raw-scans.md").is_file()


def test_files_of_another_task_ask_for_a_model_of_it(case, run, tmp_path):
    for path in case.glob("*.nii*"):
        path.rename(tmp_path / path.name.replace(case.name + "_", "BraTS-MET-00001-000-").replace("flair", "t2f"))
    (tmp_path / "BraTS-MET-00001-000").mkdir()
    for path in tmp_path.glob("BraTS-MET-*t2f*"):
        path.rename(tmp_path / "BraTS-MET-00001-000" / path.name)

    message = one(tmp_path / "BraTS-MET-00001-000", tmp_path / "out", run).error
    assert "of the task brats-met, but the model is for brats-gli-pre; use a model of that task" in message


def test_whole_heads_are_told(case, run, tmp_path):
    trained_at(run, [8.0, 8.0, 8.0])  # so that nothing is resampled
    for path in case.glob("*.nii*"):
        volume = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(volume.dataobj), np.diag([8.0, 8.0, 8.0, 1.0])), path)

    assert any(
        "skull-stripped" in text for text in one(case, tmp_path / "out", run, Options("t1", overlap=0.0)).warnings
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [(Options("t1c"), "has no t1ce, which -m asks for"), (Options(labels="x"), "allowed: auto, brats2023")],
)
def test_wishes_that_cannot_be_met_are_rejected(case, run, tmp_path, options, words):
    image(case, "t1ce").unlink()
    try:
        message = one(case, tmp_path / "out", run, options).error
    except UsageError as error:
        message = str(error)

    assert words in message
    assert not list(tmp_path.glob("out/*.nii.gz"))


def test_folders_without_images_and_wrong_outputs_are_rejected(made_study, case, run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no sequence recognised.*PATIENT_flair"):
        list(predict([tmp_path / "empty"], tmp_path / "out", run))
    with pytest.raises(UsageError, match="one file for 4 cases"):
        list(predict([made_study / "phantoms"], tmp_path / "out.nii.gz", run))
    with pytest.raises(UsageError, match="nothing: no such file or folder"):
        list(predict([tmp_path / "nothing"], tmp_path / "out.nii.gz", run))
    with pytest.raises(UsageError, match=r"scan.nii.gz: the name does not show which sequence it is"):
        list(predict([shutil.copy(image(case, "t1"), tmp_path / "scan.nii.gz")], tmp_path / "out", run))
    with pytest.raises(UsageError, match="not a finished run"):
        list(predict([case], tmp_path / "out.nii.gz", tmp_path))


def test_cases_are_found_by_their_paths_in_any_spelling(tmp_path):
    names = ["P1/anat/FLAIR.nii", "P2/anat/T1.nii", "P3_T1CE.NII.GZ", "BraTS-PEDs2024/BraTS-PED-00001-000-t2w.nii"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {case.case: case for case in cases_to_predict([tmp_path / names[2], tmp_path], GLIOMA)}

    assert list(found) == ["BraTS-PED-00001-000", "P1_anat", "P2_anat", "P3"]
    assert "choose --task brats-ped" in found["BraTS-PED-00001-000"].problem
    with pytest.raises(UsageError, match="name does not show which sequence"):
        cases_to_predict([tmp_path / names[2]], GLIOMA, "bids")

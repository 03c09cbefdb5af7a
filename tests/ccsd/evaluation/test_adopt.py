"""`ccsd adopt`: another method's label maps as an experiment of a study, whole or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from ccsd.errors import UsageError
from ccsd.evaluation import read_metrics
from ccsd.evaluation.adopt import adopt
from ccsd.report import write_report
from preprocess.folds import Folds
from support.processes import ccsd_here
from support.tasks import GLIOMA

KEYS = ["case", "subset", "region"]


@pytest.fixture
def theirs(study: Path, tmp_path: Path) -> Path:
    """Return the label maps of our own model, in folders as another method might call them."""
    ours, theirs = study / "evaluation" / "ccsd-s0" / "all" / "predictions", tmp_path / "theirs"
    for name, called in (("t1ce", "T1Gd"), ("flair+t1", "t1+flair"), (GLIOMA.full_name, "t2+t1ce+t1n+FLAIR")):
        shutil.copytree(ours / name, theirs / called)
    return theirs


def ours_of(study: Path, *subsets: str) -> pd.DataFrame:
    table = read_metrics(study / "evaluation" / "ccsd-s0" / "all" / "metrics.tsv")
    return table[table["subset"].isin(subsets)]


def scores_of(table: pd.DataFrame) -> pd.DataFrame:
    own = table.drop(columns=["experiment", "seed", "model_hash", "confidence"])  # a label map has none
    return own.sort_values(KEYS).reset_index(drop=True)


def nothing(study: Path) -> bool:
    """Whether nothing was written, temporary files included."""
    return sorted(path.name for path in (study / "evaluation").iterdir()) == ["ccsd-s0"]


def test_our_own_label_maps_get_our_own_scores(study: Path, theirs: Path) -> None:
    done = ccsd_here("adopt", theirs, "--study", study, "--as", "theirs", "--workers", 1)
    assert done.returncode == 0, done.stderr
    table = read_metrics(study / "evaluation" / "theirs" / "adopted" / "metrics.tsv")
    assert set(table["experiment"]) == {"theirs"}
    assert table["seed"].isna().all()
    assert table["model_hash"].isna().all()
    expected = scores_of(ours_of(study, "t1ce", "flair+t1", GLIOMA.full_name))
    pd.testing.assert_frame_equal(scores_of(table), expected)
    assert "label maps read as brats20" in done.stderr
    assert "run `ccsd report" in done.stdout
    identity = json.loads((study / "evaluation/theirs/adopted/evaluation.json").read_text())["identity"]
    assert identity["subsets"] == ["t1ce", "flair+t1", GLIOMA.full_name]
    assert identity["predictions"] == str(theirs)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_report_has_tables_tests_and_pictures_of_it(study: Path, theirs: Path) -> None:
    adopt(theirs, study, "theirs")
    page = write_report(study).page.read_text()
    assert "2 experiments (ccsd, theirs)" in page
    assert "Nothing to show for theirs" not in page
    assert f"<td>{theirs}</td>" in page
    assert "different splits" not in page
    compared = pd.read_csv(study / "comparisons.tsv", sep="\t")
    assert set(compared["experiment"]) == {"theirs"}
    assert (compared["difference"] == 0).all()
    assert set(compared.loc[compared["scope"] == "subset", "name"]) == {"t1ce", "flair+t1", GLIOMA.full_name}


def test_one_folder_is_of_all_sequences_and_takes_the_place_of_what_was_there(study: Path, theirs: Path) -> None:
    adopt(theirs, study, "theirs")
    found = adopt(theirs / "t2+t1ce+t1n+FLAIR", study, "theirs")
    pd.testing.assert_frame_equal(scores_of(read_metrics(found.scores)), scores_of(ours_of(study, GLIOMA.full_name)))
    assert [path.name for path in (found.scores.parent / "predictions").iterdir()] == [GLIOMA.full_name]
    assert [path.name for path in found.scores.parent.parent.iterdir()] == ["adopted"]


def test_what_lies_outside_the_box_of_the_brain_counts(study: Path, theirs: Path) -> None:
    path = min((theirs / "T1Gd").iterdir())
    image = nib.load(path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(voxels, image.affine), path)
    found = read_metrics(adopt(theirs, study, "theirs").scores)
    case = path.name.removesuffix(".nii.gz")
    rows = [table[(table["case"] == case) & (table["subset"] == "t1ce")] for table in (found, ours_of(study, "t1ce"))]
    volumes = [row.set_index("region").loc["WT", "volume_mm3"] for row in rows]
    assert volumes[0] == volumes[1] + 1
    kept = study / "evaluation" / "theirs" / "adopted" / "predictions" / "t1ce" / path.name
    assert np.array_equal(np.asarray(nib.load(kept).dataobj), voxels)


def turned(path: Path) -> None:
    """Write a label map along other axes, at the same place."""
    image = nib.as_closest_canonical(nib.load(path))
    nib.save(image.as_reoriented(nib.orientations.axcodes2ornt("LPI")), path)


def test_axes_may_be_others(study: Path, theirs: Path) -> None:
    for path in theirs.rglob("*.nii.gz"):
        turned(path)
    found = adopt(theirs, study, "theirs", workers=2)
    expected = scores_of(ours_of(study, "t1ce", "flair+t1", GLIOMA.full_name))
    pd.testing.assert_frame_equal(scores_of(read_metrics(found.scores)), expected)


def _cut(path: Path) -> None:
    image = nib.load(path)
    nib.save(image.slicer[1:], path)


def _move(path: Path) -> None:
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)


def _label(path: Path) -> None:
    image = nib.load(path)
    voxels = np.asarray(image.dataobj).copy()
    voxels[0, 0, 0] = 7
    nib.save(nib.Nifti1Image(voxels, image.affine), path)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "t1ce: {case}: no label map"),
    "unreadable": (lambda path: path.write_bytes(b"no image"), "t1ce, {case}: {path}: not a NIfTI file"),
    "another shape": (_cut, "t1ce, {case}: {path} has"),
    "another place": (_move, "are 5.0 mm apart according to their headers"),
    "another label": (_label, "t1ce, {case}: {path}: wrong label values: 7"),
    "a folder of nothing": (
        lambda path: shutil.copytree(path.parent, path.parent.parent / "flair+t3"),
        "flair+t3: not a combination of ",
    ),
    "a combination twice": (lambda path: shutil.copytree(path.parent, path.parent.parent / "t1c"), "same combination"),
    "a case twice": (lambda path: shutil.copytree(path.parent, path.parent / "again"), "two segmentations for case"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_listed_and_nothing_is_written(study: Path, theirs: Path, fault: str) -> None:
    path = min((theirs / "T1Gd").iterdir())
    break_it, words = FAULTS[fault]
    break_it(path)
    _label(max((theirs / "t1+flair").iterdir()))
    with pytest.raises(UsageError) as caught:
        adopt(theirs, study, "theirs")
    assert words.format(case=path.name.removesuffix(".nii.gz"), path=path) in str(caught.value)
    assert fault == "a combination twice" or "flair+t1, " in str(caught.value), "all of it is reported at once"
    assert nothing(study)


def test_what_was_adopted_stays_when_its_successor_does_not_fit(study: Path, theirs: Path) -> None:
    found = adopt(theirs, study, "theirs")
    before = found.scores.read_bytes()
    _label(min((theirs / "T1Gd").iterdir()))
    done = ccsd_here("adopt", theirs, "--study", study, "--as", "theirs")
    assert done.returncode == 2
    assert "nothing was adopted" in done.stderr
    assert "--labels brats2023|" in done.stderr
    assert found.scores.read_bytes() == before


def test_missing_cases_may_be_left_out_and_strangers_are_named(study: Path, theirs: Path) -> None:
    path, other = sorted((theirs / "T1Gd").iterdir())
    path.rename(path.with_name("stranger.nii.gz"))
    found = adopt(theirs, study, "theirs", partial=True)
    case = path.name.removesuffix(".nii.gz")
    assert f"t1ce: {case}: no label map" in found.notes
    assert "t1ce: ignored, not among the test cases: stranger" in found.notes
    table = read_metrics(found.scores)
    assert set(table.loc[table["subset"] == "t1ce", "case"]) == {other.name.removesuffix(".nii.gz")}
    assert set(table.loc[table["subset"] == "flair+t1", "case"]) == {case, other.name.removesuffix(".nii.gz")}


def test_the_label_map_of_another_case_is_not_taken_for_one_that_is_missing(study: Path, theirs: Path) -> None:
    """`P-1_later`, on which was trained, does not stand in for the test case `P-1`."""
    path, _ = sorted((theirs / "T1Gd").iterdir())
    case = path.name.removesuffix(".nii.gz")
    (study / "data" / f"{case}_later.zarr").mkdir()
    path.rename(path.with_name(f"{case}_later.nii.gz"))
    with pytest.raises(UsageError, match=f"t1ce: {case}: no label map"):
        adopt(theirs, study, "theirs")
    (study / "data" / f"{case}_later.zarr").rmdir()
    assert set(read_metrics(adopt(theirs, study, "theirs").scores)["case"]) > {case}  # as a name that goes on


def test_labels_may_be_of_another_convention(study: Path, theirs: Path) -> None:
    for path in theirs.rglob("*.nii.gz"):
        image = nib.load(path)
        voxels = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(voxels == 3, 4, voxels).astype(np.uint8), image.affine), path)
    found = adopt(theirs, study, "theirs", labels="brats2020")
    expected = scores_of(ours_of(study, "t1ce", "flair+t1", GLIOMA.full_name))
    pd.testing.assert_frame_equal(scores_of(read_metrics(found.scores)), expected)
    with pytest.raises(UsageError, match="--labels brats1999: unknown label convention"):
        adopt(theirs, study, "theirs", labels="brats1999")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ccsd", "already has an experiment of this name; choose another one"),
        ("../out", "give a name of letters, digits"),
        ("a-s0", "give a name"),
        ("", "give a name"),
    ],
)
def test_names_that_cannot_be_used(study: Path, theirs: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        adopt(theirs, study, name)
    assert nothing(study)


def test_a_study_that_is_none_and_a_folder_that_is_not_there(study: Path, theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no converted cases in .*; give the folder of a study, such as results/NAME"):
        adopt(theirs, tmp_path / "nowhere", "theirs")
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        adopt(tmp_path / "nowhere", study, "theirs")
    assert nothing(study)


def test_it_is_scored_as_the_study_is(study: Path, theirs: Path) -> None:
    (study / "config.yaml").write_text("name: tiny\nevaluation: {both_empty: skip, cleanup: false}\n")
    table = read_metrics(adopt(theirs, study, "theirs").scores)
    assert set(table["cleanup"]) == {"none"}
    assert table["policy"].str.startswith("both-empty:left-out").all()
    table = read_metrics(adopt(theirs, study, "theirs", overrides=["evaluation.cleanup=true"]).scores)
    assert set(table["cleanup"]) != {"none"}


def test_of_folds_every_held_out_case_is_wanted(study: Path, theirs: Path) -> None:
    tested = sorted(path.name.removesuffix(".nii.gz") for path in (theirs / "T1Gd").iterdir())
    folds = Folds({tested[0]: 0, tested[1]: 3}, {}, (), GLIOMA.label)
    (study / "data" / "split.tsv").write_text(folds.as_tsv())
    table = read_metrics(adopt(theirs, study, "theirs").scores)
    assert {case: set(rows["fold"]) for case, rows in table.groupby("case")} == {tested[0]: {0}, tested[1]: {3}}
    assert set(table["split_hash"]) == {folds.hash}


def test_folders_to_score_may_name_their_sequences_in_any_order(study: Path, theirs: Path, tmp_path: Path) -> None:
    words = ["--pred", theirs, "--ref", study / "phantoms", "--out", tmp_path / "out", "--partial"]
    done = ccsd_here("evaluate", *words)
    assert done.returncode == 0, done.stderr
    assert set(read_metrics(tmp_path / "out" / "metrics.tsv")["subset"]) == {"t1ce", "flair+t1", GLIOMA.full_name}

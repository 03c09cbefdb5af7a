"""Folds: every case outside a fixed test set is held out once; patients stay together; lists are checked."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.convert import convert
from preprocess.dataset import PATIENTS_FILE, find_patients, patient_of
from preprocess.errors import InputError
from preprocess.folds import Folds, draw_folds, make_folds, read_fold_list, read_folds
from preprocess.splits import Split, make_split, read_split
from support.cohorts import cohort_of
from support.tasks import GLIOMA

NAME = "BraTS20_Training_{:03d}"


@settings(max_examples=40)
@given(patients=st.integers(2, 40), count=st.integers(2, 6), seed=st.integers(0, 5))
def test_every_case_is_held_out_once_with_its_patient(patients: int, count: int, seed: int) -> None:
    metas = cohort_of(patients, np.random.default_rng(patients))
    owners = find_patients(metas, {})
    if patients < count:
        with pytest.raises(InputError, match=rf"at least {count} patients .*there are {patients}; use fewer folds"):
            draw_folds(metas, owners, count, seed=seed)
        return
    fold = draw_folds(metas, owners, count, seed=seed)
    assert set(fold) == set(metas)
    assert set(fold.values()) == set(range(count))
    assert len({(patient_of(case), number) for case, number in fold.items()}) == patients
    assert fold == draw_folds(dict(reversed(metas.items())), owners, count, seed=seed)


def test_folds_are_even_and_have_small_and_large_tumours_alike() -> None:
    metas = cohort_of(300, np.random.default_rng(0))
    fold = draw_folds(metas, find_patients(metas, {}), 5, seed=0)
    volumes = [[metas[case].volumes_ml["WT"] for case, number in fold.items() if number == k] for k in range(5)]
    assert [len(some) / len(metas) for some in volumes] == pytest.approx([0.2] * 5, abs=0.01)
    means = [np.mean(some) for some in volumes]
    assert means == pytest.approx([np.mean(means)] * 5, rel=0.05)
    assert fold != draw_folds(metas, find_patients(metas, {}), 5, seed=1)


@pytest.fixture(scope="module")
def converted(write_case_into: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight cases of seven patients; the last one has no segmentation."""
    root = tmp_path_factory.mktemp("folds")
    patients = [0, 1, 2, 3, 3, 4, 5, 6]
    for number in range(8):
        src = write_case_into(
            root / "src", NAME.format(number), seed=number, **({"label": None} if number == 7 else {})
        )
    convert(src, root / "stores", task=GLIOMA)
    lines = ["case\tpatient", *(f"{NAME.format(number)}\tP{patient}" for number, patient in enumerate(patients))]
    (root / "stores" / PATIENTS_FILE).write_text("\n".join(lines) + "\n")
    return root / "stores"


@pytest.fixture
def stores(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "stores", copy_function=os.link))


def owner(case: str) -> str:
    """Return the patient of a case: numbers 3 and 4 have one."""
    return case if case != NAME.format(4) else NAME.format(3)


def rows(path: Path) -> dict[str, dict[str, str]]:
    header, *lines = [line.split("\t") for line in (path / "split.tsv").read_text().splitlines()]
    return {line[0]: dict(zip(header, line, strict=True)) for line in lines}


def test_a_fold_tests_its_cases_and_validates_on_some_that_it_trains_without(stores: Path) -> None:
    folds, notes = make_folds(stores, count=3, val=0.2, seed=1)
    assert read_folds(stores) == folds
    assert notes == ["left out, converted without a segmentation: BraTS20_Training_007"]
    labelled = set(rows(stores))
    assert len(labelled) == 7
    tested: list[str] = []
    for number in folds.numbers:
        split = folds.split(number)
        assert split.train
        assert split.val
        assert {*split.train, *split.val, *split.test} == labelled
        owners = [{owner(case) for case in part} for part in (split.train, split.val, split.test)]
        assert sum(map(len, owners)) == len(set().union(*owners)), "no patient is in two parts"
        assert split.folds == folds.hash
        tested += split.test
    assert sorted(tested) == sorted(labelled)
    assert len({folds.split(number).hash for number in folds.numbers}) == 3
    assert make_folds(stores, count=3, val=0.2, seed=2)[0].hash != folds.hash


def test_without_validation_a_fold_trains_on_all_others(stores: Path) -> None:
    folds, _ = make_folds(stores, count=7 - 1, val=0)
    assert all(not folds.split(number).val for number in folds.numbers)
    assert all(row["validates"] == "" for row in rows(stores).values())


def test_what_was_written_gives_the_same_folds_as_a_list(stores: Path, tmp_path: Path) -> None:
    folds, _ = make_folds(stores, count=3, val=0.2, seed=1)
    listed = tmp_path / "mine.tsv"
    listed.write_bytes((stores / "split.tsv").read_bytes())
    again, _ = make_folds(stores, listed=listed, seed=9, val=0.5)
    assert again == folds
    assert (stores / "split.tsv").read_bytes() == listed.read_bytes()


def listed_as(path: Path, stores: Path, *columns: str, **cells: list[str]) -> Path:
    """Write a list of the seven labelled cases with the given columns."""
    names = sorted(path.name.removesuffix(".zarr") for path in stores.glob("*.zarr"))[:7]
    table = ["\t".join(["case", *columns, *cells])]
    table += ["\t".join([name, *values]) for name, *values in zip(names, *cells.values(), strict=True)]
    path.write_text("\n".join(table) + "\n")
    return path


def test_a_list_of_ones_own_has_folds_and_a_fixed_test_set(stores: Path, tmp_path: Path) -> None:
    listed = listed_as(
        tmp_path / "l.tsv", stores, fold=["", "4", "4", "7", "7", "7", "4"], split=["test", *["train"] * 5, ""]
    )
    folds, _ = make_folds(stores, listed=listed, val=0)
    names = sorted(rows(stores))
    assert folds.numbers == (4, 7)
    assert folds.test == (names[0],)
    assert folds.split(4).test == (names[1], names[2], names[6])
    assert folds.split(4).train == (*names[3:6],)
    assert folds.fixed == Split((*names[1:],), (), (names[0],), GLIOMA.label, folds.hash)


def test_folds_of_a_list_without_them_leave_its_test_cases_out(stores: Path, tmp_path: Path) -> None:
    listed = listed_as(tmp_path / "l.tsv", stores, split=["test", "test", "train", "val", "val", "train", "train"])
    folds, notes = make_folds(stores, listed=listed, count=2, val=0)
    assert folds.test == (*sorted(rows(stores))[:2],)
    assert len(folds.held_out) == 5
    assert f"{listed} has no folds: 2 were drawn among 5 cases; 2 test cases are in none" in notes


REJECTED = {
    "a hole": ({"fold": ["", *"001122"]}, r"line 2: case \S+ has the fold ''; give each case a number"),
    "no number": ({"fold": ["x", *"001122"]}, r"line 2: case \S+ has the fold 'x'"),
    "one fold": ({"fold": list("0000000")}, "all cases are in fold 0; give two or more folds"),
    "no fold": ({"fold": [""] * 7, "split": ["test"] * 7}, "no case is in a fold"),
    "shared": ({"fold": list("0000111")}, r"patients with scans in several parts: P3 .*fold 0.*fold 1"),
    "tested and in a fold": ({"fold": list("0011000"), "split": ["test", *["train"] * 6]}, "it is also in fold 0"),
    "validation": ({"fold": list("0011111"), "split": ["val", *["train"] * 6]}, "is for validation, but folds draw"),
    "validates in its own": ({"fold": list("0011111"), "validates": ["0", *[""] * 6]}, "in fold 0, which holds it out"),
    "validates nowhere": ({"fold": list("0011111"), "validates": ["5", *[""] * 6]}, "in fold 5, which does not exist"),
    "no list of folds": ({"fold": list("0011111"), "validates": ["a", *[""] * 6]}, "'a'; give folds such as 0"),
    "all validate": ({"fold": list("0011111"), "validates": ["1", "1", *[""] * 5]}, "fold 1 has nothing to train on"),
    "shared by validation": (
        {"fold": list("0011100"), "validates": ["", "", "", "0", "", "1", ""]},
        "003 val in fold 0, .*004 train in fold 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REJECTED)
def test_a_list_of_folds_that_does_not_fit_is_rejected(stores: Path, tmp_path: Path, kind: str) -> None:
    cells, words = REJECTED[kind]
    listed = listed_as(tmp_path / "l.tsv", stores, **cells)
    with pytest.raises(InputError, match=words):
        make_folds(stores, listed=listed)
    assert not (stores / "split.tsv").exists()


def test_a_torn_patient_may_be_allowed(stores: Path, tmp_path: Path) -> None:
    listed = listed_as(tmp_path / "l.tsv", stores, fold=list("0000111"))
    _, notes = make_folds(stores, listed=listed, allow_shared=True)
    assert any("patients with scans in several parts" in note for note in notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 7}, r"7 folds need at least 7 patients .*there are 6; use fewer"),
        ({"count": 1}, "1 folds: give two or more"),
        ({"count": 3, "val": 0.7}, r"fold 0 of 3 has \d patients for training and validation"),
        ({"count": 3, "val": -0.1}, r"validation share -0\.1: give 0 or more"),
        ({"count": 3, "val": float("nan")}, r"validation share nan: give 0 or more"),
        ({}, "give the number of folds"),
    ],
)
def test_folds_that_cannot_be_drawn(stores: Path, options: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_folds(stores, **options)  # type: ignore[arg-type]
    assert not (stores / "split.tsv").exists()


def test_a_list_with_another_number_of_folds_is_rejected(stores: Path, tmp_path: Path) -> None:
    listed = listed_as(tmp_path / "l.tsv", stores, fold=list("0011110"))
    with pytest.raises(InputError, match=r"has 2 folds \(0, 1\), not 5; leave the number out"):
        make_folds(stores, listed=listed, count=5)


def test_folds_are_not_taken_for_one_split(stores: Path) -> None:
    folds, _ = make_folds(stores, count=3)
    with pytest.raises(InputError, match=r"has folds; choose one, .*--set split.fold=0"):
        read_split(stores)
    with pytest.raises(InputError, match=r"no fold 3 in split\.tsv; there are 0, 1, 2"):
        folds.split(3)
    make_split(stores)
    assert read_folds(stores) is None


def test_the_hash_depends_on_the_content_alone(tmp_path: Path) -> None:
    folds = Folds({"a": 0, "b": 1, "c": 1}, {"a": (1,)}, ("d",))
    assert folds.hash == Folds({"c": 1, "b": 1, "a": 0}, {"a": (1,), "b": ()}, ("d",), "task").hash
    others = [Folds({"a": 0, "b": 1, "c": 0}, {"a": (1,)}, ("d",)), Folds(folds.held_out, {}, ("d",)),
              Folds(folds.held_out, {"a": (1,)})]  # fmt: skip
    assert len({folds.hash, *(other.hash for other in others)}) == 4
    (tmp_path / "l.tsv").write_text(folds.as_tsv())
    assert read_fold_list(tmp_path / "l.tsv").hash == folds.hash

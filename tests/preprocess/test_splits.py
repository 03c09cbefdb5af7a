"""Splits: patients stay together, tumour sizes are spread, lists are checked, the hash names the content."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.convert import convert
from preprocess.dataset import patient_of
from preprocess.errors import InputError
from preprocess.splits import Split, draw_split, make_split, read_list, read_split
from support import ROOT
from support.cohorts import cohort_of
from support.tasks import GLIOMA

LISTS = ["brats2018-1", "brats2018-2", "brats2018-3", "brats2020", "brats2021", "brats2023"]


@settings(max_examples=60)
@given(
    patients=st.integers(3, 60),
    seed=st.integers(0, 5),
    shares=st.sampled_from([(0.7, 0.1), (0.6, 0.2), (0.8, 0.1), (0.34, 0.33), (0.9, 0.05)]),
)
def test_drawn_splits(patients: int, seed: int, shares: tuple[float, float]) -> None:
    metas = cohort_of(patients, np.random.default_rng(patients))
    split = draw_split(metas, seed=seed, train=shares[0], val=shares[1])
    parts = [split.train, split.val, split.test]
    assert sorted(case for part in parts for case in part) == sorted(metas)
    owners = [{patient_of(case) for case in part} for part in parts]
    assert sum(map(len, owners)) == len(set().union(*owners)), "no patient is in two parts"
    assert all(parts)
    assert split == draw_split(dict(reversed(metas.items())), seed=seed, train=shares[0], val=shares[1])


def test_shares_are_kept_and_sizes_spread() -> None:
    metas = cohort_of(300, np.random.default_rng(0))
    split = draw_split(metas, seed=0, train=0.7, val=0.1)
    shares = [len(part) / len(metas) for part in (split.train, split.val, split.test)]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    means = [np.mean([metas[case].volumes_ml["WT"] for case in part]) for part in (split.train, split.val, split.test)]
    assert means == pytest.approx([np.mean(means)] * 3, rel=0.08)
    assert split != draw_split(metas, seed=1, train=0.7, val=0.1)


def test_no_validation_set_on_request() -> None:
    split = draw_split(cohort_of(4, np.random.default_rng(0)), seed=0, train=0.5, val=0.0)
    assert split.train
    assert split.test
    assert not split.val


@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.9, 0.1), (0.5, -0.1)])
def test_impossible_shares(shares: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="split shares"):
        draw_split(cohort_of(9, np.random.default_rng(0)), seed=0, train=shares[0], val=shares[1])


def test_too_few_patients() -> None:
    with pytest.raises(InputError, match=r"needs at least 3 patients .*there are 2; --val 0"):
        draw_split(cohort_of(2, np.random.default_rng(0)), seed=0, train=0.7, val=0.1)


def test_hash_depends_on_the_content_alone() -> None:
    split = Split(("a", "b"), ("c",), ("d",))
    assert split.hash == Split.of({"d": "test", "c": "val", "b": "train", "a": "train"}).hash
    assert split.hash != Split(("a",), ("b", "c"), ("d",)).hash


@pytest.mark.parametrize("name", LISTS)
def test_published_lists_can_be_read(name: str) -> None:
    split = Split.of(read_list(ROOT / f"config/splits/{name}.tsv"))
    assert split.train
    assert split.test
    assert not {patient_of(c) for c in split.train} & {patient_of(c) for c in split.test}


@pytest.fixture
def small(write_case: Callable[..., Path], tmp_path: Path) -> Path:
    """Four cases of which the last has no label."""
    for number in range(4):
        src = write_case(f"BraTS20_Training_{number:03d}", seed=number, **({"label": None} if number == 3 else {}))
    convert(src, tmp_path / "dest", task=GLIOMA)
    return tmp_path / "dest"


def test_a_case_without_label_is_left_out_and_told(small: Path) -> None:
    split, notes = make_split(small, seed=3)
    assert read_split(small) == split
    assert all((split.train, split.val, split.test))
    assert "BraTS20_Training_003" not in split.train + split.val + split.test
    assert notes == ["left out, converted without a segmentation: BraTS20_Training_003"]


def write_list(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(["case\tsplit", *rows]) + "\n")
    return path


def test_a_list_is_followed(small: Path, tmp_path: Path) -> None:
    listed = write_list(tmp_path / "list.tsv", ["BraTS20_Training_001\ttrain", "BraTS20_Training_000\ttest"])
    split, notes = make_split(small, listed=listed)
    assert split == Split(("BraTS20_Training_001",), (), ("BraTS20_Training_000",), GLIOMA.label)
    assert "unused: BraTS20_Training_002" in notes[1]


LISTS_REJECTED = {
    "not converted": (["BraTS20_Training_001\ttrain", "other\ttest"], "1 of 2 listed cases are not converted: other"),
    "no label": (["BraTS20_Training_003\ttrain"], "cases without a segmentation cannot be in train.*_003"),
    "unknown split": (["BraTS20_Training_001\tdev"], "line 2: split 'dev'; allowed: train, val, test"),
    "twice": (["BraTS20_Training_001\ttrain"] * 2, "line 3: case BraTS20_Training_001 is listed twice"),
}


@pytest.mark.parametrize("kind", LISTS_REJECTED)
def test_a_list_that_does_not_fit_is_rejected(small: Path, tmp_path: Path, kind: str) -> None:
    rows, message = LISTS_REJECTED[kind]
    with pytest.raises(InputError, match=message):
        make_split(small, listed=write_list(tmp_path / "list.tsv", rows))
    assert not (small / "split.tsv").exists()


def test_a_rejected_case_of_a_list_is_told_why(small: Path, tmp_path: Path) -> None:
    src = tmp_path / "src"
    (src / "BraTS20_Training_001/BraTS20_Training_001_t1.nii.gz").write_bytes(b"")
    convert(src, small, task=GLIOMA)
    with pytest.raises(InputError, match=r"BraTS20_Training_001 \(rejected: .*an empty file"):
        make_split(small, listed=write_list(tmp_path / "list.tsv", ["BraTS20_Training_001\ttrain"]))


def test_too_many_rejected_cases_are_an_error_and_few_are_told(small: Path, tmp_path: Path) -> None:
    src = tmp_path / "src"
    (src / "BraTS20_Training_001/BraTS20_Training_001_t1.nii.gz").write_bytes(b"")
    convert(src, small, task=GLIOMA)
    with pytest.raises(
        InputError, match=r"(?s)1 of 4 cases were rejected .* 0\.2:\n  BraTS20_Training_001: .*empty file"
    ):
        make_split(small, val=0, max_rejected=0.2)
    assert not (small / "split.tsv").exists()
    _, notes = make_split(small, val=0, max_rejected=0.25)
    assert notes[0].startswith("left out, rejected by the conversion: BraTS20_Training_001: ")


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("id,split\n")
    with pytest.raises(InputError, match="expected a column 'case' in the first line, which has: 'id,split'"):
        read_list(tmp_path / "a.tsv")
    with pytest.raises(InputError, match="cannot be read"):
        read_list(tmp_path / "b.tsv")
    with pytest.raises(InputError, match="make one with `ccsd split"):
        read_split(tmp_path)


@pytest.mark.parametrize(
    ("case", "patient"),
    [("BraTS-GLI-00000-001", "BraTS-GLI-00000"), ("BraTS20_Training_001", "BraTS20_Training_001"), ("x-001", "x-001")],
)
def test_patient_of(case: str, patient: str) -> None:
    assert patient_of(case) == patient

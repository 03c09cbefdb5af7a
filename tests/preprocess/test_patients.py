"""Patients come from the layout, a table or shared images; no split separates their scans unless that is allowed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from preprocess.convert import convert
from preprocess.dataset import find_patients, read_metas, read_patients
from preprocess.errors import InputError
from preprocess.splits import make_split, read_list
from support.tasks import GLIOMA

CaseWriter = Callable[..., Path]
SCANS = ("UCSF-PDGM-0433", "UCSF-PDGM-0433_FU007d", "UCSF-PDGM-0434", "UCSF-PDGM-0435")
SUFFIXES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1c", "t2": "T2", "seg": "tumor_segmentation"}


@pytest.fixture
def scans(write_case: CaseWriter, tmp_path: Path) -> Path:
    """Four scans of three patients whose names only their layout can read, converted."""
    for number, name in enumerate(SCANS):
        src = write_case(name, seed=number)
        for path in (src / name).iterdir():
            ours = path.name.removeprefix(f"{name}_").removesuffix(".nii.gz")
            path.rename(path.with_name(f"{name}_{SUFFIXES[ours]}.nii.gz"))
    convert(src, tmp_path / "dest", task=GLIOMA)
    return tmp_path / "dest"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("seed", range(6))
def test_a_drawn_split_keeps_the_scans_of_a_patient_together(scans: Path, seed: int) -> None:
    split, _ = make_split(scans, seed=seed, train=0.4, val=0.3)
    assert [part for part in split.by_name.values() if SCANS[0] in part] == [
        part for part in split.by_name.values() if SCANS[1] in part
    ]


def test_tables_have_the_patients(scans: Path) -> None:
    make_split(scans)
    header, *rows = [line.split("\t") for line in (scans / "cases.tsv").read_text().splitlines()]
    assert [row[header.index("patient")] for row in rows] == [SCANS[0], SCANS[0], *SCANS[2:]]
    assert '"patients": 3' in (scans / "dataset.json").read_text()


def test_a_list_that_tears_a_patient_apart_is_rejected_unless_allowed(scans: Path, tmp_path: Path) -> None:
    listed = write(tmp_path / "list.tsv", f"case\tsplit\n{SCANS[0]}\ttrain\n{SCANS[1]}\ttest\n")
    words = f"patients with scans in several parts: {SCANS[0]} .{SCANS[0]} train, {SCANS[1]} test"
    with pytest.raises(InputError, match=f"{words}.*--allow-shared-patients"):
        make_split(scans, listed=listed)
    assert not (scans / "split.tsv").exists()
    split, notes = make_split(scans, listed=listed, allow_shared=True)
    assert (split.train, split.test) == (SCANS[:1], SCANS[1:2])
    assert any("scans in several parts" in note for note in notes)
    different = write(tmp_path / "p.tsv", f"case\tpatient\n{SCANS[1]}\tsomebody else\n")
    assert make_split(scans, listed=listed, patients=different)[0] == split


def test_a_table_joins_patients_and_its_other_columns_are_kept(scans: Path, tmp_path: Path) -> None:
    text = f"Case,Patient,site,age\r\n{SCANS[2]},same,Bern,61\r\n{SCANS[3]},same,,\r\nstranger,x,,\r\n"
    table = write(tmp_path / "patients.csv", text, "utf-8-sig")
    with pytest.raises(InputError, match="there are 2; --val 0"):
        make_split(scans, patients=table)
    _, notes = make_split(scans, patients=table, val=0)
    assert f"in {table}, but not converted: stranger" in notes
    header, *rows = [line.split("\t") for line in (scans / "cases.tsv").read_text().splitlines()]
    assert header[-2:] == ["site", "age"]
    assert rows[2][-2:] == ["Bern", "61"]
    assert [row[2] for row in rows] == [SCANS[0], SCANS[0], "same", "same"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case\tpatient\na\tp\na\tq\n", "line 3: list each case once, with its patient"),
        ("case\tpatient\na\t\n", "line 2: list each case once"),
        ("case\tsite\n", "expected a column 'patient' in the first line"),
        ("case\tpatient\na\tp\tx\n", "line 2: 3 cells, but the first line names 2"),
        ("", "expected a column 'case'"),
    ],
)
def test_a_table_that_cannot_be_used_is_rejected_by_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read_patients(write(tmp_path / "p.tsv", text))


def test_the_same_image_under_two_names_is_one_patient_and_told(
    scans: Path, write_case: CaseWriter, tmp_path: Path
) -> None:
    src = tmp_path / "src"
    shutil.copy(src / SCANS[2] / f"{SCANS[2]}_T1.nii.gz", src / SCANS[3] / f"{SCANS[3]}_T1.nii.gz")
    convert(src, scans, task=GLIOMA)
    patients = find_patients(read_metas(scans), {})
    assert patients[SCANS[2]] == patients[SCANS[3]]
    listed = write(tmp_path / "list.tsv", f"case\tsplit\n{SCANS[2]}\ttrain\n{SCANS[3]}\ttest\n")
    with pytest.raises(InputError, match="scans in several parts"):
        make_split(scans, listed=listed)
    _, notes = make_split(scans, listed=listed, allow_shared=True)
    assert f"the same image in several cases: {SCANS[2]}, {SCANS[3]}" in notes


def test_a_sequence_that_no_case_has_is_told_before_training(scans: Path, tmp_path: Path) -> None:
    src = tmp_path / "src"
    for path in src.rglob("*_T1c.nii.gz"):
        path.unlink()
    convert(src, scans, task=GLIOMA)
    assert "no case has t1ce" in make_split(scans)[1]


@pytest.mark.parametrize(
    "text", ["case\tsplit\r\na\tTrain\r\nb\tvalidation\r\n", "Split, Case, note\nTRAINING, a, x\nvalid, b,\n"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lists_survive_spreadsheets(text: str, encoding: str, tmp_path: Path) -> None:
    assert read_list(write(tmp_path / "list.tsv", text, encoding)) == {"a": "train", "b": "val"}

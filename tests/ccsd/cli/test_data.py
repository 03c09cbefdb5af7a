"""The commands for data, as users run them: exit codes, one message, nothing half-written."""

import shutil
from pathlib import Path

import pytest

from preprocess.phantom.cohort import case_names
from support.processes import ccsd, ccsd_here
from support.tasks import GLIOMA


@pytest.fixture
def source(cohort: Path, tmp_path: Path) -> Path:
    """Four of the phantoms, for the test to change."""
    for case in case_names(4, GLIOMA):
        shutil.copytree(cohort / case, tmp_path / "src" / case)
    return tmp_path / "src"


def test_phantom_convert_split(tmp_path: Path) -> None:
    source, dest = tmp_path / "src", tmp_path / "dest"
    result = ccsd("phantom", source, "--cases", 4, "--size", 32, "--seed", 0)
    assert result.returncode == 0, result.stderr
    result = ccsd("convert", source, dest, "--workers", 2)
    assert (result.returncode, result.stdout) == (0, f"4 converted, 0 unchanged, 0 rejected; stores in {dest}\n")
    assert "0 converted, 4 unchanged" in ccsd_here("convert", source, dest).stdout
    result = ccsd_here("split", dest, "--seed", 1)
    assert result.returncode == 0
    assert "2 train, 1 val, 1 test" in result.stdout
    assert {"cases.tsv", "dataset.json", "split.tsv"} <= {path.name for path in dest.iterdir()}


TASK = """
sequences: {t1ce: T1ce, adc: ADC}
classes: {NCR: 1, ET: 2}
regions: {TC: [NCR, ET], ET: [ET]}
paint: {TC: NCR, ET: ET}
lesions: {dilation: 3, smallest_mm3: 50, penalty_mm: 374}
numbering: {mine: {NCR: 1, ET: 7}}
"""


def test_a_task_of_ones_own_from_phantoms_to_a_split(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TASK)
    source, dest, task = tmp_path / "src", tmp_path / "dest", ("--task", tmp_path / "mine.yaml")
    assert ccsd_here("phantom", source, "--cases", 4, "--size", 32, *task).returncode == 0
    result = ccsd_here("audit", source, "--out", tmp_path / "audit", *task)
    assert (result.returncode, "0 rejected, 0 unusual, 4 fine" in result.stdout) == (0, True), result.stderr
    result = ccsd_here("convert", source, dest, *task)
    assert result.stdout == f"4 converted, 0 unchanged, 0 rejected; stores in {dest}\n"
    assert "files found: t1ce 4, adc 4, segmentation 4" in result.stderr
    assert ccsd_here("split", dest).returncode == 0
    assert "\tmine@" in (dest / "split.tsv").read_text()
    result = ccsd_here("restore", dest, "Phantom-00001-0", tmp_path / "back", "-m", "T1Gd")
    assert [Path(line).name for line in result.stdout.splitlines()] == ["Phantom-00001-0_t1ce.nii.gz"]


@pytest.mark.parametrize("command", ["audit", "convert"])
def test_data_of_another_task_name_it(command: str, tmp_path: Path) -> None:
    assert ccsd_here("phantom", tmp_path / "src", "--cases", 2, "--size", 32, "--task", "brats-ped").returncode == 0
    target = ("--out", tmp_path / "out") if command == "audit" else (tmp_path / "out",)
    result = ccsd_here(command, tmp_path / "src", *target)
    assert result.returncode == 2
    assert "note: 2 of 2 cases belong to the task brats-ped: --task brats-ped" in result.stderr


def test_a_part_writes_no_tables(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    assert ccsd_here("convert", source, dest, "--part", "1/2").returncode == 0
    assert sorted(path.suffix for path in dest.iterdir()) == [".tsv", ".zarr", ".zarr"]
    assert len((dest / "files.tsv").read_text().splitlines()) == 21, "every file of the source, and the header"


def test_rejected_cases_are_listed_at_the_end(source: Path, tmp_path: Path) -> None:
    path = source / "BraTS20_Training_001/BraTS20_Training_001_t1.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    result = ccsd_here("convert", source, tmp_path / "dest")
    assert result.returncode == 2
    assert "3 converted, 0 unchanged, 1 rejected" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("rejected: BraTS20_Training_001: ")
    assert "truncated" in result.stderr
    assert "Traceback" not in result.stderr


REJECTIONS = {
    "no source": (["convert", "{tmp}/nowhere", "{tmp}/dest"], "no such folder"),
    "empty source": (["convert", "{tmp}", "{tmp}/dest"], "no case found"),
    "unknown check": (["convert", "{src}", "{tmp}/dest", "--allow", "everything"], "--allow 'everything'"),
    "unknown task": (["convert", "{src}", "{tmp}/dest", "--task", "glioma"], "task glioma: unknown; give the path"),
    "lost task": (["phantom", "{tmp}/dest", "--task", "{tmp}/x.yaml"], "x.yaml: cannot read the task"),
    "labels": (
        ["audit", "{src}", "--task", "brats-ped", "--labels", "msd"],
        "labels msd: unknown convention of the task",
    ),
    "odd part": (["convert", "{src}", "{tmp}/dest", "--part", "3"], "give I/N"),
    "part beyond": (["convert", "{src}", "{tmp}/dest", "--part", "3/2"], "I from 1 to N"),
    "odd size": (["phantom", "{tmp}/dest", "--size", "big"], "--size 'big'"),
    "small size": (["phantom", "{tmp}/dest", "--size", "8"], "at least 32"),
    "no stores": (["split", "{tmp}/dest"], "no such folder"),
}


@pytest.mark.parametrize("kind", REJECTIONS)
def test_bad_input_is_one_message(source: Path, tmp_path: Path, kind: str) -> None:
    arguments, message = REJECTIONS[kind]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    result = ccsd_here(*(a.format(src=source, tmp=elsewhere) for a in arguments))
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    "command", [("convert", "{src}", "{file}"), ("phantom", "{file}"), ("audit", "{src}", "--out", "{file}")]
)
def test_a_place_that_cannot_be_written(source: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "a file"
    file.touch()
    result = ccsd_here(*(part.format(src=source, file=file) for part in command))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(f"error: {file}")
    assert "Traceback" not in result.stderr


def test_no_usable_case_is_an_error(source: Path, tmp_path: Path) -> None:
    for path in source.rglob("*_t1.nii.gz"):
        path.write_bytes(b"")
    for path in source.rglob("*-t1n.nii.gz"):
        path.write_bytes(b"")
    result = ccsd_here("convert", source, tmp_path / "dest")
    assert result.returncode == 2
    assert "none of 4 cases can be used" in result.stderr


def test_audit_and_restore(source: Path, tmp_path: Path) -> None:
    result = ccsd_here("audit", source, "--out", tmp_path / "audit")
    assert (result.returncode, result.stderr.splitlines()[0]) == (0, "audit: 4/4 done")
    assert result.stdout.startswith("0 rejected, ")
    assert {path.name for path in (tmp_path / "audit").iterdir()} == {"audit.tsv", "files.tsv", "audit.html"}
    case = "BraTS20_Training_001"
    (source / case / f"{case}_t2.nii.gz").write_bytes(b"")
    assert ccsd_here("audit", source, "--out", tmp_path / "audit").returncode == 2
    assert ccsd_here("convert", source, tmp_path / "dest").returncode == 2
    result = ccsd_here("restore", tmp_path / "dest", "BraTS20_Training_002", tmp_path / "out", "-m", "T1c+flair")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "BraTS20_Training_002_flair.nii.gz",
        "BraTS20_Training_002_t1ce.nii.gz",
    ]
    assert ccsd_here("restore", tmp_path / "dest", case, tmp_path / "out").returncode == 2


def test_a_folder_where_a_file_is_written_keeps_what_it_holds(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    ccsd_here("convert", source, dest)
    (dest / "cases.tsv").unlink()
    (dest / "cases.tsv").mkdir()
    (dest / "cases.tsv" / "precious").touch()
    assert ccsd_here("split", dest).returncode == 2
    assert (dest / "cases.tsv" / "precious").exists()

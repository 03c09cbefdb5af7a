"""What the rules need: options that survive the shell, and outdated marks."""

import re
import shlex
import time
from pathlib import Path

import pytest

from ccsd.snakemake import convert_options, evaluation_options, found_files, outdated_marks, split_options
from ccsd.study import Study
from preprocess.source.accounts import write_files
from preprocess.source.layouts import FileRole
from support import ROOT
from support.hostile import HOSTILE

BASE = {"name": "s", "phantom": {"cases": 5}}


@pytest.mark.parametrize("value", [*HOSTILE, "two words"])
def test_values_survive_the_shell(value: str) -> None:
    raw = {"name": "x", "source": value, "convert": {"allow": [value, "b"]}, "split": {"list": value}}
    study = Study.from_mapping(raw)
    assert shlex.split(convert_options(study)) == ["--allow", value, "--allow", "b"]
    assert shlex.split(split_options(study))[:2] == ["--list", str(Path(value))]
    assert study.source == Path(value)


PLAIN = {
    "threads",
    "params.part",
    "wildcards.experiment",
    "wildcards.seed",
    "params.options",
    "params.job",
    "params.ccsd",
}
"""Numbers, names that wildcard_constraints limit to letters and digits, and words that are quoted individually."""


def test_every_value_in_a_shell_command_is_quoted() -> None:
    text = "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    commands = re.findall(r"shell:\n((?: {8}.*\n)+)", text)
    values = [value for command in commands for value in re.findall(r"\{([^}]*)\}", command)]
    assert len(commands) >= 6
    loose = {value for value in values if not value.endswith(":q") and not value.startswith("resources.")}
    assert loose <= PLAIN


def test_options_survive_the_shell() -> None:
    study = Study.from_mapping(
        {
            **BASE,
            "split": {"list": "my lists/it's.tsv", "patients": "a b"},
            "convert": {"allow": ["a b", "$(c)"], "layout": "my own.yaml", "labels": "msd"},
        }
    )
    assert shlex.split(split_options(study)) == [
        "--list", "my lists/it's.tsv", "--max-rejected", "0.05", "--patients", "a b"
    ]  # fmt: skip
    assert shlex.split(convert_options(study)) == [
        "--allow", "a b", "--allow", "$(c)", "--layout", "my own.yaml", "--labels", "msd"
    ]  # fmt: skip


def test_the_end_of_the_workflow_says_what_the_source_has(converted: Study) -> None:
    started = time.time()
    assert found_files(converted, started) == []
    files = [FileRole(Path("a_t1.nii"), "a", "t1", "generic"), FileRole(Path("CT1.nii"))]
    write_files(converted.folder.data, files)
    first, *_, last = found_files(converted, started - 1)
    assert "t1 1, t1ce 0" in first
    assert last.endswith("CT1.nii")
    assert found_files(converted, since=time.time() + 1) == []


def test_every_setting_that_scores_is_an_option() -> None:
    plain, coarse = (Study.from_mapping({**BASE, "evaluation": {"overlap": value}}) for value in (0.5, 0.1))
    assert evaluation_options(plain, "part-1-of-1").replace("overlap=0.5", "overlap=0.1") == evaluation_options(
        coarse, "part-1-of-1"
    )


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Return a study whose five cases are drawn and converted, one of them rejected, as far as names go."""
    monkeypatch.chdir(tmp_path)
    study = Study.from_mapping({**BASE, "convert": {"cases_per_job": 2}})
    folder = study.folder
    rejected, *others = study.cases
    marks = [folder.mark("phantoms"), *(folder.mark("convert", part) for part in study.parts)]
    for path in (*marks, folder.data / "rejected" / f"{rejected}.json", folder.data / "cases.tsv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for case in study.cases:
        (folder.phantoms / case).mkdir(parents=True)
    for case in others:
        (folder.data / f"{case}.zarr").mkdir()
    return study


def test_marks_hold_while_every_case_is_converted_or_rejected(converted: Study) -> None:
    assert outdated_marks(converted) == {}


def test_a_deleted_store_outdates_the_mark_of_its_part_and_the_table(converted: Study) -> None:
    folder = converted.folder
    (folder.data / f"{converted.cases[1]}.zarr").rmdir()
    expected = [folder.mark("convert", "2-of-3"), folder.data / "cases.tsv"]
    assert outdated_marks(converted) == {folder.data: expected}


def test_a_deleted_phantom_outdates_their_mark(converted: Study) -> None:
    (converted.source / converted.cases[2]).rmdir()
    assert outdated_marks(converted) == {converted.source: [converted.folder.mark("phantoms")]}


def test_before_the_first_run_nothing_is_outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert outdated_marks(Study.from_mapping(BASE)) == {}

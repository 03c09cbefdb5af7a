"""What the workflow derives from a configuration, without running anything."""

import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from snakemake.utils import update_config

from ccsd.errors import UsageError
from ccsd.snakemake import Study, grouped
from preprocess.modalities import SUBSET_ORDER

BASE = {"name": "s", "phantom": {"cases": 5}}


@given(size=st.integers(1, 15), count=st.integers(1, 15))
def test_groups_hold_every_combination_once_in_order_and_none_is_too_large(size: int, count: int) -> None:
    subsets = list(SUBSET_ORDER[:count])
    groups = grouped(subsets, size)
    assert [name for group in groups.values() for name in group] == subsets
    assert max(map(len, groups.values())) <= size
    assert max(map(len, groups.values())) - min(map(len, groups.values())) <= 1
    assert len(groups) == -(-count // size)


def test_a_job_of_one_combination_is_named_after_it() -> None:
    study = Study.from_mapping({**BASE, "evaluation": {"subsets_per_job": 1, "subsets": ["t1ce", "t2+flair"]}})
    assert study.groups == {"t1ce": ["t1ce"], "flair+t2": ["flair+t2"]}


def test_runs_are_experiments_times_seeds() -> None:
    study = Study.from_mapping({**BASE, "experiments": {"a": {}, "b": {"train.steps": 5}}, "seeds": [3, 4]})
    assert study.runs == ["a-s3", "a-s4", "b-s3", "b-s4"]


def test_fingerprints_tell_what_matters_from_what_does_not() -> None:
    plain = Study.from_mapping(BASE)
    scored = Study.from_mapping({**BASE, "evaluation": {"overlap": 0.1}})
    longer = Study.from_mapping({**BASE, "train": {"steps": 5}})
    spelled_out = Study.from_mapping({**BASE, "train": {"steps": plain.config.train.steps}})
    assert plain.training_digest("ccsd", 0) == scored.training_digest("ccsd", 0)
    assert plain.training_digest("ccsd", 0) == spelled_out.training_digest("ccsd", "0")
    assert plain.training_digest("ccsd", 0) != longer.training_digest("ccsd", 0)
    assert plain.training_digest("ccsd", 0) != plain.training_digest("ccsd", 1)
    assert plain.evaluation_options("part-1-of-1") != scored.evaluation_options("part-1-of-1")


def test_an_experiment_with_settings_of_its_own_has_a_fingerprint_of_its_own() -> None:
    study = Study.from_mapping({**BASE, "experiments": {"a": {}, "b": {"distillation.method": "hmsd"}}})
    assert study.training_digest("a", 0) != study.training_digest("b", 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"experiments": {"a": {"evaluation.overlap": 0.1}}}, "evaluation.overlap cannot differ between experiments"),
        ({"experiments": {"a": {"train.seed": 1}}}, "set `seeds` instead"),
        ({"experiments": {"a": {"train.stepz": 1}}}, "train.stepz: unknown key"),
        ({"evaluation": {"subsets": ["flair+t3"]}}, "t3"),
        ({"xtrain": {}}, "xtrain: unknown key; allowed here: name, source"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_runs(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Study.from_mapping({**BASE, **settings})
    assert words in str(caught.value)


def test_parts_cover_the_cases() -> None:
    study = Study.from_mapping({**BASE, "convert": {"cases_per_job": 2}})
    assert study.parts == ["1-of-3", "2-of-3", "3-of-3"]
    assert study.source == Path("results/s/phantoms")


def test_options_survive_the_shell() -> None:
    import shlex

    study = Study.from_mapping({**BASE, "split": {"list": "my lists/it's.tsv"}, "convert": {"allow": ["a b", "$(c)"]}})
    assert shlex.split(study.split_options())[:2] == ["--list", "my lists/it's.tsv"]
    assert shlex.split(study.allow_options()) == ["--allow", "a b", "--allow", "$(c)"]


@pytest.mark.parametrize(("overlay", "runs"), [("ablation_options", 21), ("ablation_large", 15)])
def test_overlays_of_the_ablation_fit_it(overlay: str, runs: int, root: Path) -> None:
    config: dict[str, object] = {}
    for name in ("ablation", overlay):
        update_config(config, yaml.safe_load((root / "config" / f"{name}.yaml").read_text()))
    study = Study.from_mapping(config)
    assert len(study.experiments) * len(study.config.seeds) == runs


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Return a study whose five cases are drawn and converted, one of them refused, as far as marks and names go."""
    monkeypatch.chdir(tmp_path)
    study = Study.from_mapping({**BASE, "convert": {"cases_per_job": 2}})
    for mark in ("phantoms", *(f"convert/{part}" for part in study.parts)):
        (study.marks / mark).parent.mkdir(parents=True, exist_ok=True)
        (study.marks / mark).touch()
    for case in study.cases:
        (study.source / case).mkdir(parents=True)
        (study.root / "data" / f"{case}.zarr").mkdir(parents=True)
    (study.root / "data" / f"{study.cases[0]}.zarr").rmdir()
    refusal = study.root / "data/refused" / f"{study.cases[0]}.json"
    refusal.parent.mkdir()
    for path in (refusal, study.root / "data/cases.tsv"):
        path.touch()
    return study


def _marks(study: Study) -> set[str]:
    return {str(path.relative_to(study.marks)) for path in study.marks.rglob("*") if path.is_file()}


def test_marks_stay_while_every_case_is_converted_or_refused(converted: Study) -> None:
    assert converted.drop_outdated_marks() == ""
    assert _marks(converted) == {"phantoms", "convert/1-of-3", "convert/2-of-3", "convert/3-of-3"}


def test_a_store_that_is_gone_takes_the_mark_of_its_part_along_and_the_table(converted: Study) -> None:
    (converted.root / "data" / f"{converted.cases[1]}.zarr").rmdir()
    said = "cases are gone from results/s/data; they are made again if anything needs them"
    assert converted.drop_outdated_marks() == said
    assert _marks(converted) == {"phantoms", "convert/1-of-3", "convert/3-of-3"}
    assert not (converted.root / "data/cases.tsv").exists()
    assert converted.drop_outdated_marks() == "", "said once"


def test_a_phantom_that_is_gone_takes_their_mark_along(converted: Study) -> None:
    (converted.source / converted.cases[2]).rmdir()
    assert "results/s/phantoms" in converted.drop_outdated_marks()
    assert _marks(converted) == {"convert/1-of-3", "convert/2-of-3", "convert/3-of-3"}


def test_before_the_first_run_there_is_nothing_to_forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Study.from_mapping(BASE).drop_outdated_marks() == ""


def test_files_of_the_future_are_dated_back_and_no_others(converted: Study) -> None:
    past, future = time.time() - 1000, time.time() + 1000
    ahead, before = converted.marks / "phantoms", converted.marks / "convert/1-of-3"
    os.utime(ahead, (future, future))
    os.utime(before, (past, past))
    assert converted.date_back().startswith("1 files below results/s were dated in the future")
    assert ahead.stat().st_mtime == pytest.approx(time.time(), abs=60)
    assert before.stat().st_mtime == past
    assert converted.date_back() == ""

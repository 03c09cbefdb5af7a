"""Names and digests that follow from a configuration."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from snakemake.utils import update_config

from ccsd.config import Config
from ccsd.errors import UsageError
from ccsd.study import Study, grouped
from preprocess.source.layouts import discover
from support import ROOT
from support.hostile import ESCAPES, HOSTILE
from support.tasks import GLIOMA

BASE = {"name": "s", "phantom": {"cases": 5}}


@given(size=st.integers(1, 15), count=st.integers(1, 15))
def test_groups_hold_every_combination_once_in_order_and_none_is_too_large(size: int, count: int) -> None:
    subsets = list(GLIOMA.subset_names[:count])
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


@pytest.mark.parametrize(
    ("given", "name"), [({}, "ccsd"), ({"method": "dropout"}, "dropout"), ({"method": "some.module:Own"}, "own")]
)
def test_the_only_experiment_has_the_settings_as_they_are(given: dict[str, str], name: str) -> None:
    assert Config.model_validate({**BASE, "distillation": given}).experiments == {name: {}}


def test_fingerprints_tell_what_matters_from_what_does_not() -> None:
    plain = Study.from_mapping(BASE)
    scored = Study.from_mapping({**BASE, "evaluation": {"overlap": 0.1}})
    longer = Study.from_mapping({**BASE, "train": {"steps": 5}})
    spelled_out = Study.from_mapping({**BASE, "train": {"steps": plain.config.train.steps}})
    assert plain.training_digest("ccsd-s0") == scored.training_digest("ccsd-s0")
    assert plain.training_digest("ccsd-s0") == spelled_out.training_digest("ccsd-s0")
    assert plain.training_digest("ccsd-s0") != longer.training_digest("ccsd-s0")
    assert plain.training_digest("ccsd-s0") != plain.training_digest("ccsd-s1")


def test_an_experiment_with_settings_of_its_own_has_a_fingerprint_of_its_own() -> None:
    study = Study.from_mapping({**BASE, "experiments": {"a": {}, "b": {"distillation.method": "hmsd"}}})
    assert study.training_digest("a-s0") != study.training_digest("b-s0")


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
def test_what_cannot_be_used_is_rejected_before_anything_runs(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Study.from_mapping({**BASE, **settings})
    assert words in str(caught.value)


def test_parts_cover_the_cases() -> None:
    study = Study.from_mapping({**BASE, "convert": {"cases_per_job": 2}})
    assert study.parts == ["1-of-3", "2-of-3", "3-of-3"]
    assert study.source == Path("results/s/phantoms")


def test_phantoms_are_counted_in_the_order_of_their_files(tmp_path: Path) -> None:
    """Otherwise the part that is converted again would not be the one whose store was deleted."""
    cases = Study.from_mapping(BASE).cases
    for case in cases:
        path = tmp_path / case / (f"{case}-t2f.nii.gz" if "GLI" in case else f"{case}_flair.nii.gz")
        path.parent.mkdir()
        path.touch()
    assert [found.case for found in discover(tmp_path, GLIOMA)] == cases


def test_the_overlay_of_the_ablation_keeps_its_experiments_and_gives_each_more_steps() -> None:
    config: dict[str, object] = {}
    steps = []
    for name in ("ablation", "ablation_large"):
        update_config(config, yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()))
        study = Study.from_mapping(config)
        steps.append({e: settings.train.steps for e, settings in study.experiments.items()})
    assert len(study.experiments) * len(study.config.seeds) == 27
    ratios = {e: steps[1][e] / steps[0][e] for e in study.experiments}
    assert all(18 < ratio < 19 for ratio in ratios.values()), ratios


@pytest.mark.parametrize("name", [*HOSTILE, *ESCAPES])
def test_studies_and_experiments_have_plain_names(name: str) -> None:
    for raw in ({"name": name}, {"name": "x", "experiments": {name: {}}}):
        with pytest.raises(UsageError):
            Study.from_mapping({"phantom": {}, **raw})

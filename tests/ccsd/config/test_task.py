"""The task in a configuration: by name, by path or in full, and its effect on other settings."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ccsd.config.load import validate_config
from ccsd.config.science import science_digest
from ccsd.errors import UsageError
from ccsd.snakemake import convert_options, phantom_options, phantom_task
from ccsd.study import Study
from support.tasks import GLIOMA, changed, small_task

BASE: dict[str, Any] = {"name": "x", "phantom": {}}


def written(task: Any, folder: Path) -> str:
    path = folder / f"{task.name}.yaml"
    path.write_text(yaml.safe_dump(task.model_dump(mode="json"), sort_keys=False))
    return str(path)


def test_a_task_is_given_by_name_by_path_or_whole(tmp_path: Path) -> None:
    own = small_task(2)
    assert validate_config(BASE, "c").task == GLIOMA
    assert validate_config({**BASE, "task": "brats-ped"}, "c").task.name == "brats-ped"
    for given in (written(own, tmp_path), own.model_dump(mode="json")):
        assert validate_config({**BASE, "task": given}, "c").task == own


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task": "nope"}, "task nope: unknown"),
        ({"train": {"validate_subsets": ["flair"]}}, "validate_subsets: unknown modality 'flair'; allowed: s0, s1"),
        ({"evaluation": {"subsets": ["s0+t2"]}}, "subsets: unknown modality 't2'"),
        ({"convert": {"labels": "brats2020"}}, "unknown convention of the task tiny; allowed: tiny"),
        ({"distillation": {"criterion": "static"}}, "needs static_order for the task tiny: every sequence once"),
        ({"distillation": {"static_order": ["s0"]}}, "name every sequence once: s0, s1"),
        ({"evaluation": {"min_enhancing": 5}}, "replaced by evaluation.cleanup"),
    ],
)
def test_what_the_task_does_not_have_is_rejected(settings: dict[str, Any], words: str) -> None:
    task = {"task": small_task(2).model_dump(mode="json")}
    with pytest.raises(UsageError, match=words):
        validate_config(BASE | task | settings, "c")


@pytest.mark.parametrize("settings", [{"every_n": 2}, {"hmsd_pairs": "all"}])
def test_what_grows_with_every_set_is_rejected_for_many_sequences(settings: dict[str, Any]) -> None:
    for count, rejected in ((8, False), (9, True)):
        config = BASE | {"task": small_task(count).model_dump(mode="json"), "distillation": settings}
        if rejected:
            with pytest.raises(UsageError, match="too many with more than 8 sequences"):
                validate_config(config, "c")
        else:
            assert validate_config(config, "c").distillation.model_dump().items() >= settings.items()


def test_many_sequences_score_every_step_unless_told_otherwise() -> None:
    """A default must fit every task."""
    for count, expected in ((8, 4), (9, 1)):
        config = validate_config(BASE | {"task": small_task(count).model_dump(mode="json")}, "c")
        assert config.distillation.every_n == expected
        assert validate_config(config.model_dump(mode="json"), "c").distillation.every_n == expected


def test_names_become_ours_and_validation_has_a_default() -> None:
    config = validate_config({**BASE, "evaluation": {"subsets": ["t1c+FLAIR"]}}, "c")
    assert config.evaluation.subsets == ("flair+t1ce",)
    assert config.train.validate_subsets == ("flair+t1+t1ce+t2", "flair+t1+t2", "t1ce", "flair")
    other = validate_config({**BASE, "task": small_task(5).model_dump(mode="json")}, "c")
    assert other.train.validate_subsets == ("s0+s1+s2+s3+s4", "s0", "s1", "s2", "s3")
    single = validate_config({**BASE, "task": small_task(1).model_dump(mode="json")}, "c")
    assert single.train.validate_subsets == ("s0",)


def test_the_task_decides_the_digest_of_a_training_and_the_default_one_does_not() -> None:
    plain = science_digest(validate_config(BASE, "c"), "abc")
    tasks = [GLIOMA, small_task(1), small_task(2), small_task(2, regions=2)]
    configs = [validate_config({**BASE, "task": task.model_dump(mode="json")}, "c") for task in tasks]
    assert len({science_digest(config, "abc") for config in configs}) == len(tasks)
    assert science_digest(configs[0], "abc") == plain


@pytest.mark.parametrize("how", ["default", "shipped", "path", "whole"])
def test_a_study_hands_its_task_to_the_commands(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(small_task(2), tmp_path)
    given = {"shipped": "brats-ped", "path": path, "whole": small_task(2).model_dump(mode="json")}
    raw = BASE | ({} if how == "default" else {"task": given[how]})
    study = Study.from_mapping(raw)
    study.write_config()
    expected = {"default": None, "shipped": "brats-ped", "path": path, "whole": "results/x/task.yaml"}[how]
    for options in (phantom_options(study), convert_options(study)):
        assert options.endswith(f"--task {expected}") == (expected is not None)
        assert ("--task" in options) == (expected is not None)
    again = validate_config(yaml.safe_load(study.folder.config.read_text()), "c")
    assert again == study.config
    if how == "whole":
        assert validate_config({**BASE, "task": "results/x/task.yaml"}, "c").task == study.config.task


def test_digests_of_the_cases_follow_the_task_and_its_label_numbers() -> None:
    numbers = {name: 9 - number for name, number in small_task(2).classes.items()}
    renumbered = changed(small_task(2), numbering={"own": numbers})
    studies = [
        Study.from_mapping(BASE | {"task": task.model_dump(mode="json")})
        for task in (small_task(1), small_task(2), renumbered)
    ]
    assert len({study.cases_digest() for study in studies}) == 3
    assert len({phantom_task(study)["task"] for study in studies}) == 2
    assert phantom_task(Study.from_mapping(BASE)) == {}
    plain = Study.from_mapping(BASE)
    assert plain.cases_digest() == Study.from_mapping(json.loads(json.dumps(BASE))).cases_digest()


def test_experiments_share_their_task() -> None:
    with pytest.raises(UsageError, match="cannot differ between experiments"):
        Study.from_mapping({**BASE, "experiments": {"a": {"task": "brats-ped"}}})

"""The values of a profile reach a training as they were typed, or are rejected by name."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.cli import parse_set_resources
from snakemake.resources import Resources
from snakemake.settings.types import ResourceSettings

from cluster.errors import SettingsError
from cluster.settings import JobSettings
from cluster.snakemake.profile import check_command_line, check_texts, read_texts, training_settings
from support import ROOT

CHANGED = """\
default-resources:
  slurm_account: 00123
  runtime: 1:30
set-resources:
  train:
    account: 0o17
    timeout_min: 24:00:00
    partition: off
    constraint: [a100|v100]
    qos: 2026-01-01
"""
MEANT = """\
default-resources: {slurm_account: "00123", mem_mb: 4000}
set-threads: {evaluate: 4}
set-resources:
  train:
    account: '00123'
    timeout_min: "24:00:00"
    partition: 2080
    mem_gb: 1.5
    qos:
"""


def _workflow(**train: str) -> Any:
    """Return what a workflow knows of a profile or command line."""
    parsed = parse_set_resources([f"train:{name}={value}" for name, value in train.items()])
    settings = SimpleNamespace(_parsed_overwrite_resources=parsed, _parsed_default_resources={})
    return SimpleNamespace(resource_settings=settings, is_main_process=False)


def test_values_that_yaml_changes_are_named_with_what_to_write(tmp_path: Path) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(CHANGED)
    with pytest.raises(SettingsError) as caught:
        check_texts(file)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{file}: ")
    assert "line 2: default-resources: slurm_account: YAML reads 00123 as 83" in lines[1]
    assert (
        'line 7: set-resources: train: timeout_min: YAML reads 24:00:00 as 86400; put it in quotes: timeout_min: "24'
        in (str(caught.value))
    )
    assert 'partition: YAML reads off as False; put it in quotes: partition: "off"' in str(caught.value)
    assert 'constraint: YAML reads [a100|v100] as a list; put it in quotes: constraint: "[a100|v100]"' in lines[-2]
    assert len(lines) == 1 + 6, "0o17 is a text to YAML 1.1"


def test_values_that_arrive_as_they_are_written_pass(tmp_path: Path) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(MEANT)
    check_texts(file)
    for own in ("cluster/slurm/profile.yaml", "cluster/local/profile.yaml"):
        check_texts(ROOT / own)


def test_a_number_that_the_command_line_would_change_is_rejected() -> None:
    check_command_line(["--set-resources", "train:nodes=2", "train:account='007'", "train:partition=a100"])
    check_command_line(["--set-resources", "train:nodes=2", "--config", "name=007"])
    for words in (["--set-resources", "train:account=007"], ["--set-resources=train:account=007"]):
        with pytest.raises(SettingsError, match="train:account=007: Snakemake reads this as 7"):
            check_command_line(words)
    with pytest.raises(SettingsError, match="put it in two pairs of quotes: slurm_account=\"'1_000'\""):
        check_command_line(["--default-resources", "mem_mb=100", "slurm_account=1_000"])


@pytest.mark.parametrize(
    "name",
    ["00123", "0x1F", "2024-10", "1e3", "all", "max", "None", "True", "off", "[1|2]", "a100&ib", "gpu:a100:1", "input"],
)
def test_names_reach_rules_as_they_were_typed(name: str) -> None:
    settings = ResourceSettings(
        default_resources=Resources.parse([f"slurm_partition={name!r}", f"qos={name}"], allow_expressions=True),
        overwrite_resources={"convert": Resources.parse([f"constraint={name}"], allow_expressions=True)},
    )
    if not name.isdecimal():  # that is rejected on a command line, and quoted by Snakemake in a profile
        read_texts(SimpleNamespace(resource_settings=settings, is_main_process=False))
        assert settings._parsed_default_resources["qos"].value == name
        assert settings._parsed_overwrite_resources["convert"]["constraint"].value == name
    read_texts(SimpleNamespace(resource_settings=settings, is_main_process=False))
    assert settings._parsed_default_resources["slurm_partition"].value == name
    again = Resources.parse(settings._parsed_default_resources.args, allow_expressions=True)
    read_texts(SimpleNamespace(resource_settings=ResourceSettings(default_resources=again), is_main_process=False))
    assert again["slurm_partition"].value == name, "the Snakemake of a job takes it from its command line"


@pytest.mark.parametrize(
    ("runtime", "expected"), [("24:00:00", 1440), ("'2-00:00:00'", 2880), ("2-00", 2880), ("1:30", 2), ("90m", 90)]
)
def test_times_of_rules_mean_what_they_mean_to_slurm(runtime: str, expected: int) -> None:
    settings = ResourceSettings(default_resources=Resources.parse([f"runtime={runtime}"], allow_expressions=True))
    read_texts(SimpleNamespace(resource_settings=settings, is_main_process=False))
    assert settings._parsed_default_resources["runtime"].value == expected


def test_other_times_of_rules_are_named_and_expressions_left_to_snakemake() -> None:
    for runtime, words in (("1:2:3:4", "set-resources: convert: runtime: not a time limit"), ("60 * attempt", "")):
        parsed = {
            "convert": Resources.parse([f"runtime={runtime}", "qos='a' if attempt else 'b'"], allow_expressions=True)
        }
        settings = ResourceSettings(overwrite_resources=parsed)
        with pytest.raises(SettingsError, match=words) if words else nullcontext():
            read_texts(SimpleNamespace(resource_settings=settings, is_main_process=False))
    assert settings._parsed_overwrite_resources["convert"]["runtime"].is_evaluable()
    assert settings._parsed_overwrite_resources["convert"]["qos"].is_evaluable()


def test_nothing_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROJECT", "radiology")
    texts = {"account": "'00123'", "timeout_min": "2-00", "partition": "off", "constraint": "[a100|v100]"}
    settings, options = training_settings(_workflow(cluster="slurm", **texts, extra="{reservation: $PROJECT}"))
    assert settings == JobSettings(
        cluster="slurm", account="00123", timeout_min=2880, partition="off", constraint="[a100|v100]",
        extra={"reservation": "radiology"},
    )  # fmt: skip
    assert "--job account=00123" in options


def test_a_job_of_ours_has_only_settings_of_ours() -> None:
    with pytest.raises(SettingsError, match="mem_mb: unknown setting"):
        training_settings(_workflow(cluster="slurm", mem_mb="4000"))
    settings, options = training_settings(_workflow(gpu="1"))
    assert (settings, options) == (JobSettings(), "--job cluster=local")


def test_the_word_executor_is_kept_from_the_executor() -> None:
    workflow = _workflow(cluster="executor", slurm_partition="gpu", tasks_per_node="2")
    settings, _ = training_settings(workflow)
    assert (settings.cluster, settings.tasks, settings.max_requeues) == ("executor", 2, 3)
    assert "cluster" not in workflow.resource_settings._parsed_overwrite_resources["train"]
    assert training_settings(workflow)[1] == "--job cluster=local --job tasks_per_node=2"

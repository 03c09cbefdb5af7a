"""What a profile says reaches a training as it was typed, or is refused by name."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.cli import parse_set_resources

from cluster.errors import SettingsError
from cluster.settings import JobSettings
from cluster.snakemake.profile import check_command_line, check_texts, training_settings
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
    settings = SimpleNamespace(_parsed_overwrite_resources=parsed)
    return SimpleNamespace(resource_settings=settings, is_main_process=False)


def test_values_that_yaml_changes_are_named_with_what_to_write(tmp_path: Path) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(CHANGED)
    with pytest.raises(SettingsError) as caught:
        check_texts(file)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{file}: ")
    assert "line 2: default-resources: slurm_account: 00123 is 83 to YAML" in lines[1]
    assert (
        'line 7: set-resources: train: timeout_min: 24:00:00 is 86400 to YAML; write it in quotes: timeout_min: "24'
        in (str(caught.value))
    )
    assert 'partition: off is False to YAML; write it in quotes: partition: "off"' in str(caught.value)
    assert 'constraint: [a100|v100] is a list to YAML; write it in quotes: constraint: "[a100|v100]"' in lines[-2]
    assert len(lines) == 1 + 6, "0o17 is a text to YAML 1.1"


def test_values_that_arrive_as_they_are_written_pass(tmp_path: Path) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(MEANT)
    check_texts(file)
    for own in ("cluster/slurm/profile.yaml", "cluster/local/profile.yaml"):
        check_texts(ROOT / own)


def test_a_number_that_the_command_line_would_change_is_refused() -> None:
    check_command_line(["--set-resources", "train:nodes=2", "train:account='007'", "train:partition=a100"])
    with pytest.raises(SettingsError, match="train:account=007: to Snakemake that is 7"):
        check_command_line(["--set-resources", "train:account=007"])


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

"""Job settings: what is allowed, and how texts become settings."""

import shlex

import pytest

from cluster.errors import SettingsError
from cluster.settings import JobSettings, job_options


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("node=2", "node: unknown setting; allowed: cluster, nodes, tasks_per_node"),
        ("nodes=0", "nodes: Input should be greater than 0 (got '0')"),
        ("nodes", "expected KEY=VALUE"),
        ("cluster=pbs", "'local', 'slurm' or 'executor'"),
        ("mem_gb=-1", "mem_gb"),
        ("nodes=2", "nodes=2 needs cluster=slurm"),
        ("extra.time=3", "extra.time: use the setting timeout_min instead"),
        ("extra.output=x", "extra.output: set by the launcher"),
        ("extra.--bad=x", "write a long sbatch option without dashes"),
        ("extra=[", "not valid YAML"),
        ("timeout_min=60", "timeout_min=60 needs cluster=slurm"),
        ("timeout_min=1 week", "timeout_min: not a time limit; write minutes (1440), hours:minutes:seconds (24:00:00)"),
        ("timeout_min=UNLIMITED", "not a time limit"),
        ("timeout_min=1:2:3:4", "not a time limit"),
        ("timeout_min=0", "greater than 0"),
        ("gpus_per_node=a100", "not a number of GPUs; write a number (2) or, on slurm, a type and a number (a100:2)"),
        ("gpus_per_node=-1", "not a number of GPUs"),
        ("gpus_per_node=a100:2", "gpus_per_node=a100:2 needs cluster=slurm"),
        (
            "python=apptainer-that-is-not-here exec x.sif python",
            "apptainer-that-is-not-here: no such program here; use",
        ),
        ("python=sh -c 'x", "No closing quotation; use a shell command such as apptainer exec"),
        ("gpus_per_node=4", "gpus_per_node=4 and tasks_per_node=1: each process uses its own GPU"),
    ],
)
def test_wrong_settings_are_named_with_what_is_allowed(option: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        assert JobSettings.from_options([option]).interpreter
    assert words in str(caught.value)


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        JobSettings.from_options(["nodes=0", "tusks=1"])
    assert "nodes:" in str(caught.value)
    assert "tusks:" in str(caught.value)


def test_an_empty_value_leaves_the_default() -> None:
    settings = JobSettings.from_options(["mem_gb=", "partition=", "extra=", "tasks_per_node=3"])
    assert settings == JobSettings(tasks_per_node=3)


def test_further_options_come_one_by_one_or_as_a_mapping() -> None:
    one_by_one = JobSettings.from_options(["extra.reservation=maint", "extra.nice=10"])
    assert one_by_one == JobSettings.from_options(["extra={reservation: maint, nice: 10}"])


@pytest.mark.parametrize("text", ["00123", "1:00:00", "off", "2026-01-01", "[a|b]", "1e3", "007-1"])
def test_further_options_reach_sbatch_as_they_were_typed(text: str) -> None:
    both = [f"extra.reservation={text}", f"extra={{reservation: '{text}'}}"]
    plain = [] if text.startswith("[") else [f"extra={{reservation: {text}}}"]
    for option in [*both, *plain]:
        assert JobSettings.from_options([option]).extra == {"reservation": text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1440", 1440), ("90m", 90), ("24h", 1440), ("2d", 2880), ("24:00:00", 1440), ("2-00:00:00", 2880),
        ("2-00", 2880), ("1-12", 2160), ("1-12:30", 2190), ("12:30", 13), ("90:00", 90), ("0:59:01", 60), ("007", 7),
    ],
)  # fmt: skip
def test_times_mean_what_they_mean_to_slurm(text: str, expected: int) -> None:
    assert JobSettings.from_options(["cluster=slurm", f"timeout_min={text}"]).timeout_min == expected


def test_gpus_may_have_a_type() -> None:
    settings = JobSettings.from_options(["cluster=slurm", "tasks_per_node=2", "gpus_per_node=nvidia_a100-sxm4.80gb:2"])
    assert (settings.gpus_per_node, settings.gpus) == ("nvidia_a100-sxm4.80gb:2", 2)
    assert JobSettings.from_options(["tasks_per_node=4", "gpus_per_node=4"]).gpus == 4


TEXTS = {"cluster": "slurm", "partition": "off", "account": "00123", "qos": "two words", "constraint": "[a100|v100]"}
NUMBERS = {"nodes": 2, "mem_gb": 1.5, "signal_delay_s": 300, "max_requeues": 0}
EXTRA = {"reservation": "it's", "nice": "10", "exclusive": True}


def test_settings_survive_the_shell_as_options() -> None:
    line = job_options({**TEXTS, **NUMBERS, "extra": str(EXTRA), "qos": "", "tmpdir": "/tmp", "mem_mb": 1000})
    words = shlex.split(line)
    assert words[::2] == ["--job"] * (len(words) // 2)
    assert JobSettings.from_options(words[1::2]) == JobSettings(**{**TEXTS, **NUMBERS, "qos": None}, extra=EXTRA)


def test_without_settings_there_are_no_options() -> None:
    assert job_options({"mem_mb": 1000, "partition": ""}) == ""

"""What runs again, and what does not, when something changes. A stand-in writes each stage's files."""

import shlex
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from cluster.settings import JobSettings
from support.projects import HERE, Project

SLOW = pytest.mark.slow
STUDY = {
    "phantom": {"cases": 5},
    "convert": {"cases_per_job": 2},
    "evaluation": {"subsets_per_job": 8},
    "seeds": [0, 1],
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a study that ran to its end; tests work on copies of it."""
    clone = Project(tmp_path_factory.mktemp("original") / "clone")
    clone.configure(**STUDY)
    done = clone.snakemake(*HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    return clone


@pytest.fixture
def finished(original: Project, tmp_path: Path) -> Project:
    """Return a copy of the finished study."""
    return original.copy(tmp_path / "clone")


def _stages(clone: Project) -> list[str]:
    return sorted(line.split()[0] for line in clone.calls())


def test_every_stage_runs_as_often_as_it_must(finished: Project) -> None:
    assert _stages(finished) == sorted(
        ["phantom", *["convert"] * 3, "split", *["train"] * 2, *["evaluate"] * 4, "report"]
    )


def test_typed_again_nothing_runs(finished: Project) -> None:
    finished.forget_calls()
    done = finished.snakemake(*HERE)
    assert done.returncode == 0
    assert finished.calls() == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param(["evaluation={overlap: 0.25}"], ["evaluate"] * 4 + ["report"], id="evaluation"),
        pytest.param(["train={steps: 7}"], ["evaluate"] * 4 + ["report"] + ["train"] * 2, id="training", marks=SLOW),
        pytest.param(["seeds=[0,1,2]"], ["evaluate"] * 2 + ["report", "train"], id="one-seed-more", marks=SLOW),
        pytest.param(
            ["convert={allow: [xyz]}"],
            ["convert"] * 3 + ["evaluate"] * 4 + ["report", "split"] + ["train"] * 2,
            id="conversion",
            marks=SLOW,
        ),
    ],
)
def test_a_changed_setting_reruns_what_depends_on_it(
    finished: Project, settings: list[str], expected: list[str]
) -> None:
    finished.forget_calls()
    done = finished.snakemake(*HERE, "--config", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _stages(finished) == expected
    resolved = yaml.safe_load((finished.folder / "results/study/config.yaml").read_text())
    section, _, value = settings[0].partition("=")
    changed = yaml.safe_load(value)
    assert resolved[section] == (changed if isinstance(changed, list) else {**resolved[section], **changed})


@SLOW
def test_where_a_training_runs_is_no_reason_to_train_again(finished: Project) -> None:
    finished.forget_calls()
    done = finished.snakemake(*HERE, "--set-resources", "train:tasks_per_node=7", "train:cluster=slurm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished.calls() == []


@SLOW
def test_a_run_begins_from_the_start_when_its_folder_its_scores_and_the_report_are_removed(finished: Project) -> None:
    run = min((finished.results / "runs").iterdir())
    for folder in (run, finished.results / "evaluation" / run.name):
        shutil.rmtree(folder)
    (finished.results / "report.html").unlink()
    finished.forget_calls()
    done = finished.snakemake(*HERE)
    assert done.returncode == 0, done.stderr
    assert _stages(finished) == ["evaluate", "evaluate", "report", "train"]


@SLOW
def test_what_is_adopted_from_another_method_makes_the_report_again_and_nothing_else(finished: Project) -> None:
    scores = finished.results / "evaluation" / "rfnet" / "adopted" / "metrics.tsv"
    scores.parent.mkdir(parents=True)
    scores.write_text("scores")
    for expected in (["report"], []):
        finished.forget_calls()
        assert finished.snakemake(*HERE).returncode == 0
        assert _stages(finished) == expected
    shutil.rmtree(scores.parent.parent)
    finished.forget_calls()
    assert finished.snakemake(*HERE).returncode == 0
    assert _stages(finished) == ["report"]


@SLOW
def test_a_failing_retraining_keeps_the_finished_model(finished: Project) -> None:
    model = finished.folder / "results/study/runs/ccsd-s0/model.safetensors"
    done = finished.snakemake(*HERE, "--config", "train={steps: 9}", STAND_IN_FAILS="train")
    assert done.returncode == 1
    assert "told to fail" in done.stdout + done.stderr
    assert model.read_text() == "train"


@SLOW
def test_job_settings_reach_the_command(project: Callable[..., Project]) -> None:
    clone = project()
    clone.configure(**STUDY)
    settings = {
        "cluster": "slurm", "nodes": "2", "partition": "off", "account": "'00123'", "constraint": "[a100|v100]",
        "signal_delay_s": "300", "max_requeues": "0", "extra": "{reservation: maint}",
    }  # fmt: skip
    done = clone.snakemake(*HERE, "-np", "--set-resources", *(f"train:{name}={settings[name]}" for name in settings))
    assert done.returncode == 0, done.stdout + done.stderr
    call = next(line for line in done.stdout.splitlines() if "ccsd train" in line)
    words = shlex.split(call)
    jobs = [after for word, after in pairwise(words) if word == "--job"]
    assert JobSettings.from_options(jobs) == JobSettings(
        cluster="slurm", nodes=2, partition="off", account="00123", constraint="[a100|v100]",
        signal_delay_s=300, max_requeues=0, extra={"reservation": "maint"},
    )  # fmt: skip


def _delete_a_store(clone: Project) -> None:
    shutil.rmtree(min((clone.results / "data").glob("*.zarr")))


def _delete_a_phantom(clone: Project) -> None:
    shutil.rmtree(min((clone.results / "phantoms").iterdir()))


def _fail_to_train(clone: Project) -> None:
    clone.configure(**STUDY, train={"steps": 7})
    assert clone.snakemake(*HERE, STAND_IN_FAILS="train").returncode == 1


@SLOW
def test_deleted_stores_are_made_again_only_if_something_needs_them(finished: Project) -> None:
    _delete_a_store(finished)
    finished.forget_calls()
    done = finished.snakemake(*HERE)
    assert done.returncode == 0, done.stderr
    assert "cases are missing from results/study/data; they are recreated if anything needs them" in done.stderr
    assert finished.calls() == []

    done = finished.snakemake(*HERE, "--config", "evaluation={overlap: 0.25}")
    assert done.returncode == 0, done.stderr
    assert _stages(finished) == sorted(["convert", "split", *["train"] * 2, *["evaluate"] * 4, "report"])
    assert finished.snakemake(*HERE, "--config", "evaluation={overlap: 0.25}").stderr.count("cases are missing") == 0


@pytest.mark.parametrize(
    "damage",
    [
        _delete_a_store,
        *(pytest.param(damage, marks=SLOW) for damage in (_delete_a_phantom, _fail_to_train)),
    ],
)
def test_a_dry_run_changes_no_file(finished: Project, damage: Callable[[Project], None]) -> None:
    damage(finished)
    (finished.results / "report.html").unlink()
    before = _files(finished)
    done = finished.snakemake(*HERE, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "rule report" in done.stdout
    assert _files(finished) == before


def _files(clone: Project) -> dict[Path, tuple[int, bytes]]:
    """Return time and content of each file of the study, and of Snakemake's records about it."""
    folders = (clone.results, *((clone.folder / ".snakemake" / name) for name in ("metadata", "incomplete", "locks")))
    paths = [path for folder in folders for path in folder.rglob("*")]
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}

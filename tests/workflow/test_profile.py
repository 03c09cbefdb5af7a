"""An unusable profile is rejected before anything runs; Snakemake never repeats a training."""

from collections.abc import Callable

import pytest

from support.projects import HERE, TINY, Project

PROFILE = """\
__use_yte__: true
cores: 1
set-resources:
  train:
    cluster: slurm
    timeout_min: {time}
"""


def test_a_dry_run_rejects_what_the_training_would_reject(project: Callable[..., Project]) -> None:
    clone = project()
    clone.configure(**TINY)
    (clone.folder / "mine").mkdir()
    for time, words in (
        (
            "24:00:00",
            "mine/profile.yaml: values that YAML would change:\n  line 6: set-res",
        ),
        ("'1 week'", "the job settings cannot be used:\n  timeout_min: not a time limit; write minutes (1440)"),
    ):
        (clone.folder / "mine/profile.yaml").write_text(PROFILE.format(time=time))
        done = clone.snakemake("--profile", "mine", "--configfile", "study.yaml", "--dry-run")
        assert done.returncode == 1
        assert words in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
    (clone.folder / "mine/profile.yaml").write_text(PROFILE.format(time="24:00:00"))
    elsewhere = ("--directory", "elsewhere", "--configfile", "study.yaml")
    done = clone.snakemake("--profile", "mine", *elsewhere, "--dry-run")
    assert "mine/profile.yaml: values that YAML would change" in done.stdout, "as `ccsd doctor --profile` starts it"


@pytest.mark.slow
def test_a_training_that_fails_is_not_repeated(project: Callable[..., Project]) -> None:
    clone = project()
    clone.configure(**TINY)
    done = clone.snakemake(*HERE, "--retries", "2", STAND_IN_FAILS="train")
    assert done.returncode == 1
    assert len(clone.calls("train")) == 1


@pytest.mark.slow
def test_a_profile_says_what_starts_python_in_every_job(project: Callable[..., Project]) -> None:
    clone = project()
    clone.configure(**TINY)
    (clone.folder / "mine").mkdir()
    text = "cores: 1\ndefault-resources:\n  python: env exec --nv ccsd.sif python\n"
    words = ("--profile", "mine", "--configfile", "study.yaml", "--dry-run", "--printshellcmds")
    (clone.folder / "mine/profile.yaml").write_text(text)
    shown = clone.snakemake(*words).stdout
    for stage in ("phantom", "convert", "split", "evaluate", "report"):
        assert f" env exec --nv ccsd.sif python -m ccsd {stage} " in shown
    assert " ccsd train " in shown  # the launcher is at home, its ranks are not
    assert "--job 'python=env exec --nv ccsd.sif python'" in shown

"""A dry run over zero-byte files in every layout in which BraTS was released: names alone must suffice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from support.projects import Project

OLD = ("flair", "t1", "t1ce", "t2", "seg")
NEW = ("t2f", "t1n", "t1c", "t2w", "seg")


def _named(case: str, endings: tuple[str, ...], joint: str, suffix: str = ".nii.gz") -> list[str]:
    return [f"{case}/{case}{joint}{ending}{suffix}" for ending in endings]


LAYOUTS = {
    "brats2018": [
        *(f"HGG/{path}" for path in _named("Brats18_2013_2_1", OLD, "_")),
        *(f"LGG/{path}" for path in _named("Brats18_TCIA09_141_1", OLD, "_")),
    ],
    "brats2020": [
        *_named("BraTS20_Training_001", OLD, "_", ".nii"),
        *_named("BraTS20_Training_355", OLD[:4], "_", ".nii"),
        "BraTS20_Training_355/W39_1998.09.19_Segm.nii",
    ],
    "brats2021": [*_named("BraTS2021_00000", OLD, "_"), *_named("BraTS2021_00002", OLD, "_")],
    "brats2023": [*_named("BraTS-GLI-00000-000", NEW, "-"), *_named("BraTS-GLI-00000-001", NEW, "-")],
    "brats2024": [*_named("BraTS-GLI-02062-100", NEW, "-"), *_named("BraTS-GLI-02062-101", NEW, "-")],
    "msd": [f"{folder}/BRATS_{number}.nii.gz" for folder in ("imagesTr", "labelsTr") for number in ("001", "002")],
    "generic": [
        *(f"patient1/{name}.nii.gz" for name in ("FLAIR", "T1w", "T1gd", "T2w", "seg")),
        *(f"patient2/{name}.nii.gz" for name in ("flair", "t1", "t1ce", "t2", "seg")),
    ],
}


@pytest.mark.parametrize(
    "layout", ["brats2023", *(pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS if name != "brats2023")]
)
def test_dry_run_finds_both_cases(layout: str, tmp_path: Path, project: Callable[..., Project]) -> None:
    source = tmp_path / "source"
    for name in LAYOUTS[layout]:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    clone = project()
    config = clone.configure(source=str(source), convert={"cases_per_job": 1})

    done = clone.snakemake("--profile", "cluster/local", "--configfile", config, "-n")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1-of-2" in done.stdout
    assert "2-of-2" in done.stdout
    assert "3" not in [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("convert ")]


def test_missing_folder_is_one_clear_message(project: Callable[..., Project]) -> None:
    clone = project()
    config = clone.configure(source="/no/such/folder")

    done = clone.snakemake("--profile", "cluster/local", "--configfile", config, "-n")

    assert done.returncode == 1
    assert "/no/such/folder" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.slow
def test_the_linter_asks_only_for_environments_of_each_rule(project: Callable[..., Project]) -> None:
    """There is only one environment, which runs Snakemake itself; all other rules of the linter are followed."""
    clone = project()
    config = clone.configure(phantom={"cases": 5})
    done = clone.snakemake("--profile", "cluster/local", "--configfile", config, "--lint")
    complaints = [line.strip() for line in done.stderr.splitlines() if line.startswith("    * ")]
    assert set(complaints) == {"* Specify a conda environment or container for each rule.:"}

"""`ccsd phantom`: a synthetic cohort."""

import re
from pathlib import Path
from typing import Annotated

import typer

from ccsd.cli.options import TASK, TaskOption
from preprocess.errors import InputError


def phantom(
    dest: Annotated[Path, typer.Argument(help="Folder to write; it gets one folder per case.")],
    cases: Annotated[int, typer.Option(help="Number of cases.")] = 24,
    size: Annotated[str, typer.Option(help="Voxels (1 mm) along each axis, or three numbers like 240x240x155.")] = "64",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    difficulty: Annotated[float, typer.Option(help="0: clean images, strong contrast; 1: noisy, weak contrast.")] = 0.5,
    task: TaskOption = TASK,
) -> None:
    """Write a cohort of phantom heads with tumours, of any task.

    Cohorts of the default task have the file layouts of BraTS 2020 and 2023; others come with a layout file.
    """
    from preprocess.errors import counted
    from preprocess.parallel import track
    from preprocess.phantom.cohort import write_cohort
    from preprocess.task import read_task

    written = write_cohort(dest, cases=cases, size=_shape(size), seed=seed, difficulty=difficulty, task=read_task(task))
    total = sum(1 for _ in track(written, cases, "phantom"))
    typer.echo(f"{counted(total, 'case')} in {dest}")


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) not in (1, 3) or not all(re.fullmatch("[0-9]{1,9}", part.strip()) for part in parts):
        raise InputError(f"--size {text!r}: give one whole number of voxels, or three like 240x240x155")
    numbers = [int(part) for part in parts]
    return (numbers[0], numbers[0], numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1], numbers[2])

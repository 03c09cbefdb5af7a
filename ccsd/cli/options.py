"""Options that several commands have, and lines that they print."""

import re
from collections.abc import Iterable
from typing import Annotated

import typer

from preprocess.errors import InputError

LayoutOption = Annotated[
    str | None, typer.Option(help="Layout of the files: a name, or a YAML file of your own. Found out by default.")
]
ModelsOption = Annotated[
    list[str],
    typer.Option(
        "--model",
        help="Folder of a finished training run, packed file, name of one in CCSD_MODELS, https://...#sha256=..., or "
        "hf:ORG/NAME@REVISION; given several times, their probabilities are averaged.",
    ),
]
NUMBERINGS = "brats2023, brats2020, brats2024, msd, deepbratumia"
"""Label conventions of the default task: to read them takes longer than a help may; a test holds that these are all."""
TaskOption = Annotated[
    str, typer.Option(help="What is segmented from what: the name of a task, or a YAML file of your own.")
]
TASK = "brats-gli-pre"
"""The default task; a test holds that it is the one of `preprocess.task`."""
DeviceOption = Annotated[
    str | None,
    typer.Option(
        envvar="CCSD_DEVICE",
        metavar="auto|cpu",
        help="auto: the GPU, an error if there should be one and none can be used; cpu: the CPU. [default: auto]",
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        help=f"What the label numbers mean, instead of what the layout says: a convention of the task ({NUMBERINGS})."
    ),
]


def report_lines(lines: Iterable[str]) -> None:
    """Print what a command found in its input."""
    for line in lines:
        typer.echo(f"note: {line}", err=True)


def parse_part(text: str) -> tuple[int, int]:
    """Return the numbers of `I/N`; 1/1 without a text.

    Raises
    ------
    InputError
        If it is something else.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text or "1/1")
    if not found:
        raise InputError(f"--part {text!r}: give I/N, for example 3/40")
    return int(found[1]), int(found[2])

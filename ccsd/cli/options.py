"""Options and output that several commands share."""

import re
from collections.abc import Iterable
from typing import Annotated

import typer

from preprocess.errors import InputError

LayoutOption = Annotated[
    str | None, typer.Option(help="Layout of the files: a name, or a YAML file of your own. Detected by default.")
]
ModelsOption = Annotated[
    list[str],
    typer.Option(
        "--model",
        help="Folder of a finished training run, packed file, name of one in CCSD_MODELS, https://...#sha256=..., or "
        "hf:ORG/NAME@REVISION; if repeated, probabilities are averaged.",
    ),
]
NUMBERINGS = "brats2023, brats2020, brats2024, msd, deepbratumia"
"""Label conventions of the default task: reading them is too slow for a help text; a test checks that these are all."""
TaskOption = Annotated[
    str,
    typer.Option(help="Task (classes, and the sequences to segment them from): a name, or a YAML file of your own."),
]
TASK = "brats-gli-pre"
"""The default task; a test ensures that it is that of `preprocess.task`."""
DeviceOption = Annotated[
    str | None,
    typer.Option(
        envvar="CCSD_DEVICE",
        metavar="auto|cpu",
        help="auto: the GPU, or an error if there should be one but it is unusable; cpu: the CPU. [default: auto]",
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        help=f"Label convention of the files, instead of that of the layout: one of the task's ({NUMBERINGS})."
    ),
]


def report_lines(lines: Iterable[str]) -> None:
    """Print what a command found in its input."""
    for line in lines:
        typer.echo(f"note: {line}", err=True)


def parse_part(text: str) -> tuple[int, int]:
    """Return the numbers of `I/N`; 1/1 for an empty text.

    Raises
    ------
    InputError
        If the text has another form.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text or "1/1")
    if not found:
        raise InputError(f"--part {text!r}: give I/N, for example 3/40")
    return int(found[1]), int(found[2])

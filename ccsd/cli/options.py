"""Options that several commands have, and lines that they print."""

from collections.abc import Iterable
from typing import Annotated

import typer

LayoutOption = Annotated[
    str | None, typer.Option(help="Layout of the files: a name, or a YAML file of your own. Found out by default.")
]
NUMBERINGS = "brats2020, brats2023, brats2024, msd, deepbratumia"
"""The names of the label conventions: to import them takes longer than a help may; a test holds that these are all."""
LabelsOption = Annotated[
    str | None,
    typer.Option(help=f"What the label numbers mean, instead of what the layout says: {NUMBERINGS}."),
]


def report_lines(lines: Iterable[str]) -> None:
    """Print what a command found in its input."""
    for line in lines:
        typer.echo(f"note: {line}", err=True)

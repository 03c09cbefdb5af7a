"""`ccsd report`: the tables and the page of a study."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[Path, typer.Argument(help="Folder of a study, results/NAME.")],
    out: Annotated[Path | None, typer.Option(help="File of the page; results/NAME/report.html by default.")] = None,
) -> None:
    """Collect the scores of a study in tables and one self-contained page.

    Prints mean Dice by experiment and number of sequences, differences between experiments, and the path of the page.
    """
    from ccsd.report import write_report

    written = write_report(results, out)
    typer.echo(f"{written.text}\n")
    typer.echo(written.page)

"""`ccsd adopt`: add the label maps of another method to the report of a study."""

from pathlib import Path
from typing import Annotated

import typer

from ccsd.cli.evaluate import Overrides, Workers
from ccsd.cli.options import LayoutOption, report_lines


def adopt(
    predictions: Annotated[
        Path,
        typer.Argument(help="Folder with a subfolder per combination, such as flair+t1ce, or with the label maps."),
    ],
    study: Annotated[Path, typer.Option(help="Folder of a study, results/NAME, with converted cases and a split.")],
    name: Annotated[str, typer.Option("--as", metavar="METHOD", help="Name of the method in the report.")],
    labels: Annotated[
        str, typer.Option(help="Label convention of the files: auto (that of each case), or a convention of the task.")
    ] = "auto",
    layout: LayoutOption = None,
    ignore_affine: Annotated[
        bool,
        typer.Option("--ignore-affine", help="Compare voxel by voxel even if the headers give different positions."),
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out cases without a label map, and list them.")
    ] = False,
    workers: Workers = None,
    overrides: Overrides = None,
) -> None:
    """Score label maps of another method on the test cases of a study, for its report.

    Everything is checked first; what is missing, unknown or does not fit is listed. Then everything is written, or
    nothing.
    """
    from ccsd.evaluation.adopt import adopt
    from ccsd.evaluation.tables import mean_dice, read_metrics
    from preprocess.parallel import given_cores

    adopted = adopt(
        predictions,
        study,
        name,
        labels=labels,
        layout=layout,
        overrides=overrides or (),
        ignore_affine=ignore_affine,
        partial=partial,
        workers=workers or given_cores(),
    )
    report_lines(adopted.notes)
    typer.echo(f"{mean_dice(read_metrics(adopted.scores))}\n{adopted.scores}")
    typer.echo(f"run `ccsd report {study}`, or the workflow, to add it to the report")

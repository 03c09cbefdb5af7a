"""`ccsd calibrate`: relate a model's confidence in a segmentation to the Dice to expect."""

from pathlib import Path
from typing import Annotated

import typer

from ccsd.cli.options import DeviceOption


def calibrate(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Folder of a finished run; several are calibrated as one.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Data set that the run was trained on. Default: that of its study.")
    ] = None,
    level: Annotated[float, typer.Option(help="Share of new cases whose Dice should be in the interval.")] = 0.9,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Evaluation setting to change, e.g. evaluation.flips=true."),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Compare a model's confidence with its Dice on its validation cases; predict then reports the Dice to expect.

    Writes calibration.json beside run.json (for an ensemble, beside that of the first run).
    """
    from ccsd.evaluation.calibrate import calibrate as write

    done = write(runs, data, overrides or (), device, level)
    for note in done.notes:
        typer.echo(f"note: {note}", err=True)
    counts = (done.calibration.cases, "case"), (done.calibration.patients, "patient")
    typer.echo(f"calibrated with {' of '.join(f'{count} {word}' + 's' * (count != 1) for count, word in counts)}")
    typer.echo(done.path)

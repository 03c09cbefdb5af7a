"""`ccsd split`: which cases train, validate and test."""

from pathlib import Path
from typing import Annotated

import typer


def split(
    dest: Annotated[Path, typer.Argument(help="Folder with converted cases.")],
    list_file: Annotated[
        Path | None, typer.Option("--list", help="Table with the columns case and split, e.g. of config/splits.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of a drawn split.")] = 0,
    train: Annotated[float, typer.Option(help="Share of training cases in a drawn split.")] = 0.7,
    val: Annotated[float, typer.Option(help="Share of validation cases in a drawn split; the rest is tested.")] = 0.1,
    max_refused: Annotated[
        float, typer.Option(min=0, max=1, help="Share of all cases that conversion may have refused; more is an error.")
    ] = 1.0,
) -> None:
    """Say which cases train, validate and test: a published list, or a draw that keeps patients together."""
    from preprocess.splits import FILE as SPLIT_FILE
    from preprocess.splits import make_split

    made, notes = make_split(dest, listed=list_file, seed=seed, train=train, val=val, max_refused=max_refused)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    counts = ", ".join(f"{len(cases)} {name}" for name, cases in made.by_name.items())
    typer.echo(f"split {made.hash}: {counts}; written to {dest / SPLIT_FILE}")

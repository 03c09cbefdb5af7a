"""`ccsd split`: training, validation and test cases."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ccsd.cli.options import report_lines
from ccsd.errors import UsageError

TRAIN = 0.7
"""Default share of training cases."""


def split(
    dest: Annotated[Path, typer.Argument(help="Folder with converted cases.")],
    list_file: Annotated[
        Path | None,
        typer.Option("--list", help="Table with columns case and split, e.g. from config/splits, or case and fold."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of a drawn split.")] = 0,
    folds: Annotated[
        int | None,
        typer.Option(help="Number of folds to draw, each of which holds out other cases, unless a list has them."),
    ] = None,
    train: Annotated[float, typer.Option(help="Share of training cases in a drawn split.")] = TRAIN,
    val: Annotated[
        float,
        typer.Option(help="Share of validation cases in a drawn split or fold; the rest of a split is for testing."),
    ] = 0.1,
    patients: Annotated[
        Path | None,
        typer.Option(help="Table with columns case and patient; others, such as site, are copied to cases.tsv."),
    ] = None,
    allow_shared: Annotated[
        bool, typer.Option("--allow-shared-patients", help="Allow a list with scans of one patient in several parts.")
    ] = False,
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="Share of cases that conversion may have rejected; more is an error.")
    ] = 1.0,
) -> None:
    """Split cases into training, validation and test, or into folds: by a published list, or drawn by patient."""
    from preprocess.errors import first_few
    from preprocess.folds import make_folds
    from preprocess.source.accounts import read_files, unused
    from preprocess.splits import FILE as SPLIT_FILE
    from preprocess.splits import has_folds, make_split

    drawing: dict[str, Any] = {"listed": list_file, "seed": seed, "val": val}
    limits: dict[str, Any] = {"max_rejected": max_rejected, "patients": patients, "allow_shared": allow_shared}
    if folds is not None or (list_file is not None and has_folds(list_file)):
        if train != TRAIN:
            raise UsageError(
                "--train does not apply to folds: a fold trains on all cases that it does not hold out or validate on"
            )
        made, notes = make_folds(dest, count=folds, **drawing, **limits)
        splits = {f"fold {number}: ": made.split(number) for number in made.numbers}
        notes += [f"test cases, in no fold: {first_few(list(made.test))}"] if made.test else []
    else:
        split, notes = make_split(dest, train=train, **drawing, **limits)
        splits = {"": split}
    report_lines([*notes, *unused(read_files(dest))])
    for name, one in splits.items():
        counts = ", ".join(f"{len(cases)} {part}" for part, cases in one.by_name.items())
        typer.echo(f"{name}split {one.hash}: {counts}; written to {dest / SPLIT_FILE}")

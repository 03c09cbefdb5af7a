"""`ccsd check-plugin`: whether a network or an objective of one's own keeps to the interface."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ccsd.errors import UsageError


def check_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Entry point, or package.module:factory.")],
    objective: Annotated[
        bool, typer.Option("--objective", help="NAME is an objective; needed for package.module:factory.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting to try it with, e.g. model.options.width=8, train.patch=[64,64,64].",
        ),
    ] = None,
    without_gradient: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX", help="Beginning of the names of weights that need no gradient; may be repeated."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of the three trainings, a multiple of 20.")] = 40,
) -> None:
    """Check a network or an objective of your own on the CPU: a line for each check; exit code 2 if one failed."""
    from ccsd.plugins.conformance import config_for, kind_of, run_checks

    kind = kind_of(name, objective=objective)
    config = config_for(kind, name, overrides or (), steps)
    failed = []
    with tempfile.TemporaryDirectory(prefix="ccsd-check-") as folder:
        for outcome in run_checks(kind, config, Path(folder), without_gradient or ()):
            typer.echo(outcome)
            failed += [] if outcome.passed else [outcome.name]
    if failed:
        raise UsageError(
            f"{name} does not keep to the interface: {', '.join(failed)}; each line above says what to do, and "
            "docs/how-to/plugins.md what is expected"
        )

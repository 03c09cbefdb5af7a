"""`ccsd check-plugin`: check that a user's network or objective follows the interface."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ccsd.errors import UsageError


def check_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of an entry point, or package.module:factory.")],
    objective: Annotated[
        bool, typer.Option("--objective", help="NAME is an objective; needed for package.module:factory.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting for the check, e.g. model.options.width=8, train.patch=[64,64,64].",
        ),
    ] = None,
    without_gradient: Annotated[
        list[str] | None,
        typer.Option(metavar="PREFIX", help="Prefix of the names of weights that need no gradient; repeatable."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of the three trainings, a multiple of 20.")] = 40,
) -> None:
    """Check a network or an objective of your own on the CPU: one line per check; exit code 2 if one failed."""
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
            f"{name} does not follow the interface: {', '.join(failed)}; each line above says what to do, and "
            "docs/how-to/plugins.md describes what is expected"
        )

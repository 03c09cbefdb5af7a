"""`ccsd doctor`."""

import json
from pathlib import Path
from typing import Annotated

import typer


def doctor(
    folder: Annotated[Path, typer.Argument(help="Folder in which results will be written.")] = Path(),
    profile: Annotated[
        str | None,
        typer.Option(help="Snakemake profile, e.g. slurm: ask SLURM whether it would accept each kind of job."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Print what a bug report needs, and report problems; exit code 1 if this machine cannot run a study."""
    from ccsd import doctor as examination
    from ccsd.errors import UsageError

    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give an existing one")
    facts = examination.inspect_machine(folder, profile)
    found = examination.diagnose(facts)
    if as_json:
        typer.echo(json.dumps(examination.as_dict(facts, found), indent=2))
    else:
        typer.echo(examination.as_text(facts, found))
    if found.blocking:
        raise typer.Exit(1)

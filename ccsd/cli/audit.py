"""`ccsd audit`: look at a data set before it is converted."""

from pathlib import Path
from typing import Annotated

import typer


def audit(
    src: Annotated[Path, typer.Argument(help="Folder with cases in any released BraTS layout, or a mix.")],
    out: Annotated[Path, typer.Option(help="Folder for audit.tsv and audit.html.")] = Path("audit"),
    workers: Annotated[int, typer.Option(min=1, help="Processes that read cases at the same time.")] = 1,
) -> None:
    """Look at a data set before it is converted: what would be refused, what is odd, a thumbnail of each case.

    The exit code is 2 when cases would be refused.
    """
    from preprocess.audit import audit as run
    from preprocess.audit import summary, write_audit
    from preprocess.source.layouts import passed_over

    audits = run(src, workers=workers)
    write_audit(audits, out)
    if note := passed_over([src]):
        typer.echo(f"note: {note}", err=True)
    for item in audits:
        for finding in item.findings:
            typer.echo(f"{item.verdict}: {item.case}: {finding}", err=True)
    counts = summary(audits)
    typer.echo(f"{counts['refused']} refused, {counts['odd']} odd, {counts['fine']} fine; see {out / 'audit.html'}")
    if counts["refused"]:
        raise typer.Exit(2)

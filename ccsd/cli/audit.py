"""`ccsd audit`: look at a data set before it is converted."""

from pathlib import Path
from typing import Annotated

import typer

from ccsd.cli.options import LabelsOption, LayoutOption, report_lines


def audit(
    src: Annotated[Path, typer.Argument(help="Folder with cases in any released BraTS layout, or a mix.")],
    out: Annotated[Path, typer.Option(help="Folder for audit.html, audit.tsv and files.tsv.")] = Path("audit"),
    workers: Annotated[int, typer.Option(min=1, help="Processes that read cases at the same time.")] = 1,
    layout: LayoutOption = None,
    labels: LabelsOption = None,
) -> None:
    """Look at a data set before it is converted: which file is what, what would be refused, what is odd, thumbnails.

    The exit code is 2 when cases would be refused.
    """
    from preprocess.audit import audit as run
    from preprocess.audit import verdicts, write_audit
    from preprocess.source.accounts import find_cases, summary

    found = find_cases(src, layout, labels, record=out)
    audits = run(found.cases, workers=workers)
    write_audit(audits, found.files, out)
    report_lines(summary(found.files))
    for item in audits:
        for finding in item.findings:
            typer.echo(f"{item.verdict}: {item.case}: {finding}", err=True)
    counts = verdicts(audits)
    typer.echo(f"{counts['refused']} refused, {counts['odd']} odd, {counts['fine']} fine; see {out / 'audit.html'}")
    if counts["refused"]:
        raise typer.Exit(2)

"""`ccsd audit`: check a data set before conversion."""

from pathlib import Path
from typing import Annotated

import typer

from ccsd.cli.options import TASK, LabelsOption, LayoutOption, TaskOption, report_lines


def audit(
    src: Annotated[Path, typer.Argument(help="Folder with cases in any layout of docs/reference/data.md, or a mix.")],
    out: Annotated[Path, typer.Option(help="Folder for audit.html, audit.tsv and files.tsv.")] = Path("audit"),
    workers: Annotated[int, typer.Option(min=1, help="Number of processes that read cases in parallel.")] = 1,
    task: TaskOption = TASK,
    layout: LayoutOption = None,
    labels: LabelsOption = None,
) -> None:
    """Check a data set before conversion: roles of files, cases that would be rejected, what is unusual, thumbnails.

    The exit code is 2 if cases would be rejected.
    """
    from preprocess.audit import audit as run
    from preprocess.audit import verdicts, write_audit
    from preprocess.source.accounts import find_cases, summary, task_hint
    from preprocess.task import read_task

    chosen = read_task(task)
    found = find_cases(src, chosen, layout, labels, record=out)
    audits = run(found.cases, workers=workers)
    write_audit(audits, found.files, out, chosen)
    report_lines(summary(found.files, chosen))
    for item in audits:
        for finding in item.findings:
            typer.echo(f"{item.verdict}: {item.case}: {finding}", err=True)
    report_lines(task_hint(found.cases))
    counts = verdicts(audits)
    typer.echo(
        f"{counts['rejected']} rejected, {counts['unusual']} unusual, {counts['fine']} fine; see {out / 'audit.html'}"
    )
    if counts["rejected"]:
        raise typer.Exit(2)

"""`ccsd convert`, from NIfTI to Zarr stores, and `ccsd restore`, the reverse."""

from pathlib import Path
from typing import Annotated

import typer

from ccsd.cli.options import TASK, LabelsOption, LayoutOption, TaskOption, parse_part, report_lines
from preprocess.errors import InputError


def convert(
    src: Annotated[Path, typer.Argument(help="Folder with cases in any layout of docs/reference/data.md, or a mix.")],
    dest: Annotated[Path, typer.Argument(help="Folder for the stores, one CASE.zarr per case.")],
    workers: Annotated[int, typer.Option(min=1, help="Number of processes that convert cases in parallel.")] = 1,
    part: Annotated[
        str, typer.Option(help="I/N: convert only part I of N of the cases; skip the tables of the data set.")
    ] = "",
    allow: Annotated[
        list[str] | None, typer.Option(help="Accept cases that fail the check of this name; repeatable.")
    ] = None,
    task: TaskOption = TASK,
    layout: LayoutOption = None,
    labels: LabelsOption = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Exit with 0 even if cases are rejected; `ccsd split` leaves them out.")
    ] = False,
) -> None:
    """Convert NIfTI cases to Zarr stores: those that are new or changed.

    A case that cannot be right is rejected, with the reason (status rejected); the others are converted all the same.
    The exit code is 2 if cases were rejected, 1 if a case killed the process that converted it.
    """
    from preprocess.convert import convert as run
    from preprocess.dataset import what_stands_out, write_tables
    from preprocess.source.accounts import read_files, summary, task_hint
    from preprocess.task import read_task

    chosen = read_task(task)
    found = run(
        src, dest, workers=workers, part=parse_part(part), allow=allow or (), layout=layout, labels=labels, task=chosen
    )
    notes = [] if part else what_stands_out(dest, write_tables(dest), {case.case for case in found})
    report_lines([*summary(read_files(dest), chosen), *notes])
    kinds = {kind: [case for case in found if case.status == kind] for kind in ("converted", "unchanged", "rejected")}
    for case in kinds["converted"]:
        if case.message:
            typer.echo(f"warning: {case.case}: {case.message}", err=True)
    typer.echo(f"{', '.join(f'{len(cases)} {kind}' for kind, cases in kinds.items())}; stores in {dest}")
    rejected = kinds["rejected"]
    for case in rejected:
        typer.echo(f"rejected: {case.case}: {case.message}", err=True)
    hint = task_hint(found)
    report_lines(hint)
    if any(case.died for case in rejected):
        raise typer.Exit(1)
    if rejected and len(rejected) == len(found) and not part:
        why = "; ".join(["the reasons are above", *hint])
        raise InputError(f"{src}: none of {len(rejected)} cases can be used; {why}")
    if rejected and not keep_going:
        raise typer.Exit(2)


def restore(
    data: Annotated[Path, typer.Argument(help="Folder with converted cases.")],
    case: Annotated[str, typer.Argument(help="Name of the case.")],
    out: Annotated[Path, typer.Argument(help="Folder for the NIfTI files.")],
    modalities: Annotated[
        str, typer.Option("-m", "--modalities", help="Only these, joined by '+'; by default all and the segmentation.")
    ] = "",
) -> None:
    """Write a converted case back as NIfTI: the source's voxels in its space, to within the storage precision."""
    from preprocess.restore import write_restored

    for path in write_restored(data, case, out, modalities):
        typer.echo(path)

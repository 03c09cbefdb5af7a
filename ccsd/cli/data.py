"""Commands for data: phantoms, conversion, splits."""

import re
from pathlib import Path
from typing import Annotated

import typer

from preprocess.errors import InputError


def register(app: typer.Typer) -> None:
    """Add this module's commands to the command line."""
    app.command()(phantom)
    app.command()(convert)
    app.command()(split)
    app.command()(audit)
    app.command()(restore)


def phantom(
    dest: Annotated[Path, typer.Argument(help="Folder to write; one folder per case below it.")],
    cases: Annotated[int, typer.Option(help="Number of cases.")] = 24,
    size: Annotated[str, typer.Option(help="Voxels (1 mm) along each axis, or three numbers like 240x240x155.")] = "64",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    difficulty: Annotated[float, typer.Option(help="0: clean images, strong contrast; 1: noisy, weak contrast.")] = 0.5,
) -> None:
    """Write a cohort of phantom heads with tumours in the file layouts of BraTS 2020 and 2023."""
    from preprocess.phantom.cohort import write_cohort
    from preprocess.progress import track

    written = write_cohort(dest, cases=cases, size=_shape(size), seed=seed, difficulty=difficulty)
    total = sum(1 for _ in track(written, cases, "phantom"))
    typer.echo(f"{total} cases in {dest}")


def convert(
    src: Annotated[Path, typer.Argument(help="Folder with cases in any released BraTS layout, or a mix.")],
    dest: Annotated[Path, typer.Argument(help="Folder for the stores, one CASE.zarr per case.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes that convert cases at the same time.")] = 1,
    part: Annotated[str, typer.Option(help="I/N: convert the I-th of N parts, write no table of the data set.")] = "",
    allow: Annotated[
        list[str] | None, typer.Option(help="Name of a check that shall not refuse a case; may be repeated.")
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Exit with 0 though cases were refused; `ccsd split` leaves them out.")
    ] = False,
) -> None:
    """Convert NIfTI cases to Zarr stores: those that are missing or changed.

    A case that cannot be right is refused, with the reason; the others are converted all the same. The exit code is 2
    when cases were refused, 1 when a case killed the process that converted it.
    """
    from preprocess.convert import convert as run
    from preprocess.dataset import write_tables
    from preprocess.source.layouts import passed_over

    summary = run(src, dest, workers=workers, part=_part(part), allow=allow or ())
    if not part:
        write_tables(dest)
        _note(passed_over([src]))
    for outcome in summary.named("converted"):
        if outcome.message:
            typer.echo(f"warning: {outcome.case}: {outcome.message}", err=True)
    refused = summary.named("refused")
    counts = ", ".join(f"{len(summary.named(kind))} {kind}" for kind in ("converted", "unchanged", "refused"))
    typer.echo(f"{counts}; stores in {dest}")
    for outcome in refused:
        typer.echo(f"refused: {outcome.case}: {outcome.message}", err=True)
    if any(outcome.died for outcome in refused):
        raise typer.Exit(1)
    if refused and len(refused) == len(summary.outcomes) and not part:
        raise InputError(f"{src}: none of {len(refused)} cases can be used; the reasons are above")
    if refused and not keep_going:
        raise typer.Exit(2)


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
    from preprocess.splits import make_split

    made, notes = make_split(dest, listed=list_file, seed=seed, train=train, val=val, max_refused=max_refused)
    for note in notes:
        _note(note)
    counts = ", ".join(f"{len(cases)} {name}" for name, cases in made.by_name.items())
    typer.echo(f"split {made.hash}: {counts}; written to {dest / 'split.tsv'}")


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
    _note(passed_over([src]))
    for item in audits:
        for finding in item.findings:
            typer.echo(f"{item.verdict}: {item.case}: {finding}", err=True)
    counts = summary(audits)
    typer.echo(f"{counts['refused']} refused, {counts['odd']} odd, {counts['fine']} fine; see {out / 'audit.html'}")
    if counts["refused"]:
        raise typer.Exit(2)


def restore(
    data: Annotated[Path, typer.Argument(help="Folder with converted cases.")],
    case: Annotated[str, typer.Argument(help="Name of the case.")],
    out: Annotated[Path, typer.Argument(help="Folder for the NIfTI files.")],
    modalities: Annotated[
        str, typer.Option("-m", "--modalities", help="Only these, joined by '+'; by default all and the segmentation.")
    ] = "",
) -> None:
    """Write a converted case back as NIfTI: the source's voxels, to within the storage precision, in its space."""
    from preprocess.modalities import subset
    from preprocess.restore import write_restored

    for path in write_restored(data, case, out, subset(modalities) if modalities else ()):
        typer.echo(path)


def _note(text: str | None) -> None:
    if text:
        typer.echo(f"note: {text}", err=True)


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text or "1/1")
    if not found:
        raise InputError(f"--part {text!r}: give I/N, for example 3/40")
    return int(found[1]), int(found[2])


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) not in (1, 3) or not all(re.fullmatch("[0-9]{1,9}", part.strip()) for part in parts):
        raise InputError(f"--size {text!r}: give one whole number of voxels, or three like 240x240x155")
    numbers = [int(part) for part in parts]
    return (numbers[0], numbers[0], numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1], numbers[2])

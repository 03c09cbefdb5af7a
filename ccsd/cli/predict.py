"""`ccsd predict`: segment new cases, and `ccsd export`: a model for PyTorch alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccsd.cli.options import DeviceOption, LayoutOption, ModelsOption, parse_part
from ccsd.errors import UsageError

if TYPE_CHECKING:
    from ccsd.inference.predict import Outcome


def predict(
    sources: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Folder of a case, a folder of such folders, or files.")
    ],
    out: Annotated[Path, typer.Argument(help="NIfTI file for one case, or a folder for CASE.nii.gz each.")],
    models: ModelsOption,
    subset: Annotated[
        str | None, typer.Option("--modalities", "-m", help="Use only these sequences, e.g. flair+t1ce.")
    ] = None,
    labels: Annotated[
        str, typer.Option(help="Label convention of the output: auto, or one of the model's task.")
    ] = "auto",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write CASE_probabilities.nii.gz with one volume per region.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Also write CASE.png: slices with outlines of the regions.")
    ] = False,
    flips: Annotated[bool, typer.Option("--flips", help="Average over 8 mirror images; 8 times slower.")] = False,
    overlap: Annotated[
        float | None,
        typer.Option(help="Overlap of neighbouring windows as a share; less overlap can mean fewer windows."),
    ] = None,
    cleanup: Annotated[
        bool, typer.Option("--cleanup", help="Apply the clean-up of the task, e.g. a small ET becomes necrotic core.")
    ] = False,
    layout: LayoutOption = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Accept cases that fail the check of this name; repeatable.")
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Skip cases already segmented with these models and options.")
    ] = False,
    part: Annotated[
        str, typer.Option(help="I/N: segment part I of N of the cases, each on its own GPU or machine.")
    ] = "",
    device: DeviceOption = None,
) -> None:
    """Segment cases from whatever sequences they have; the output has the space and label numbers of the input."""
    from ccsd.inference.options import Options
    from ccsd.inference.predict import predict

    options = Options(
        subset, labels, probabilities, preview, flips, overlap, cleanup, layout, tuple(allow or ()), skip_existing,
        device, parse_part(part),
    )  # fmt: skip
    outcomes = predict(sources, out, models, options)
    failed = [outcome for outcome in outcomes if not _print_outcome(outcome, preview=preview)]
    if failed:
        listed = "\n".join(f"  {outcome.error}" for outcome in failed)
        raise UsageError(f"{len(failed)} cases were not segmented:\n{listed}" if len(failed) > 1 else failed[0].error)


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Run, packed file, name or address, as --model takes.")],
    out: Annotated[Path, typer.Argument(help="File to write, ending in .pt2.")],
    subset: Annotated[str, typer.Option("--modalities", "-m", help="The combination, e.g. flair+t1ce.")],
) -> None:
    """Write one combination of a model as a program for PyTorch (torch.export) that does not need this package."""
    from ccsd.inference.export import export

    written = export(model, out, subset)
    typer.echo(f"largest difference from the model on a random window: {written.difference:g}", err=True)
    typer.echo(written.path)


def _print_outcome(outcome: "Outcome", *, preview: bool) -> bool:
    """Print the outcome of a case; return False if it failed."""
    if outcome.error:
        return False
    for warning in outcome.warnings:
        typer.echo(f"{outcome.case}: warning: {warning}", err=True)
    if outcome.skipped:
        typer.echo(f"{outcome.case}: {outcome.path} exists, skipped")
        return True
    missing = f", missing {', '.join(outcome.missing)}" if outcome.missing else ""
    volumes = ", ".join(f"{region} {size:.1f} ml" for region, size in outcome.volumes_ml.items())
    typer.echo(f"{outcome.case}: used {', '.join(outcome.used)}{missing}; {volumes}; labels {outcome.labels}")
    if outcome.expected_dice:
        dice = ", ".join(f"{region} {expected}" for region, expected in outcome.expected_dice.items())
        typer.echo(f"{outcome.case}: expected Dice {dice}")
    if preview:
        from ccsd.inference.finished import preview_file

        typer.echo(f"{outcome.case}: preview {preview_file(outcome.path)}")
    typer.echo(outcome.path)
    return True

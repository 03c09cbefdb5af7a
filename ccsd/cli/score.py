"""Commands for scores: evaluate, report, predict."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccsd.errors import UsageError

if TYPE_CHECKING:
    from ccsd.inference.predict import Outcome

Subsets = Annotated[
    list[str] | None,
    typer.Option("--modalities", "-m", help="Combination such as flair+t1ce; may be repeated. Default: all 15."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Evaluation setting to change, e.g. evaluation.overlap=0.25."),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the command line."""
    app.command()(evaluate)
    app.command()(report)
    app.command()(predict)
    app.command()(export)


def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for metrics.tsv, evaluation.json and predictions.")],
    model: Annotated[Path | None, typer.Option(help="Folder of a finished training run.")] = None,
    data: Annotated[Path | None, typer.Option(help="Converted data set; its test cases are scored.")] = None,
    subsets: Subsets = None,
    pred: Annotated[Path | None, typer.Option(help="Folder of segmentations to score, instead of a model.")] = None,
    ref: Annotated[Path | None, typer.Option(help="Folder of reference segmentations.")] = None,
    pred_labels: Annotated[str, typer.Option(help="Labels in --pred: auto, brats2020, brats2023, brats2024, msd.")] = (
        "auto"
    ),
    ref_labels: Annotated[str, typer.Option(help="Labels in --ref: auto, brats2020, brats2023, brats2024, msd.")] = (
        "auto"
    ),
    ignore_affine: Annotated[
        bool, typer.Option("--ignore-affine", help="Compare voxel by voxel although headers place files differently.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave references without a prediction out, and say how many.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that score the files of --pred.")] = 1,
    overrides: Overrides = None,
) -> None:
    """Score a model on the test cases (--model, --data), or segmentations against references (--pred, --ref).

    An interrupted evaluation of a model carries on; a finished one is left as it is.
    """
    form = (model is not None, data is not None, pred is not None, ref is not None)
    if form == (True, True, False, False) and model and data:
        from ccsd.evaluation.run import evaluate_model

        _show(evaluate_model(model, data, out, subsets or (), overrides or ()))
    elif form == (False, False, True, True) and pred and ref:
        from ccsd.evaluation.folders import evaluate_folders
        from ccsd.evaluation.settings import evaluation_settings

        if subsets:
            raise UsageError("-m chooses what a model is given; it has no meaning with --pred and --ref")
        settings = evaluation_settings(None, overrides or ())
        table = evaluate_folders(
            pred,
            ref,
            out,
            settings,
            pred_labels=pred_labels,
            ref_labels=ref_labels,
            ignore_affine=ignore_affine,
            partial=partial,
            workers=workers,
        )
        _show(table)
    else:
        raise UsageError("give either --model and --data, to score a model, or --pred and --ref, to score files")


def _show(scores: Path) -> None:
    from ccsd.evaluation.tables import mean_dice, read_metrics

    typer.echo(f"{mean_dice(read_metrics(scores))}\n{scores}")


def report(
    results: Annotated[Path, typer.Argument(help="Folder of a study, results/NAME.")],
    out: Annotated[Path | None, typer.Option(help="The page; results/NAME/report.html by default.")] = None,
) -> None:
    """Gather the scores of a study in tables and one self-contained page.

    Prints mean Dice by experiment and number of sequences, how experiments differ, and last the path of the page.
    """
    from ccsd.report import write_report

    written = write_report(results, out)
    typer.echo(f"{written.text}\n")
    typer.echo(written.page)


def predict(
    sources: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Folder of a case, a folder of such folders, or files.")
    ],
    out: Annotated[Path, typer.Argument(help="NIfTI file for one case, or a folder for CASE.nii.gz each.")],
    model: Annotated[Path, typer.Option(help="Folder of a finished training run.")],
    subset: Annotated[
        str | None, typer.Option("--modalities", "-m", help="Use these sequences only, e.g. flair+t1ce.")
    ] = None,
    labels: Annotated[str, typer.Option(help="Labels to write: auto, brats2020, brats2023, brats2024, msd.")] = "auto",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write CASE_probabilities.nii.gz: WT, TC, ET.")
    ] = False,
    flips: Annotated[bool, typer.Option("--flips", help="Average over 8 mirror images: 8 times as slow.")] = False,
    overlap: Annotated[
        float | None, typer.Option(help="Share of a window that overlaps its neighbour; 0.25 is faster than 0.5.")
    ] = None,
    min_enhancing: Annotated[int, typer.Option(min=0, help="ET of fewer voxels becomes necrotic core.")] = 0,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave finished cases as they are.")] = False,
) -> None:
    """Segment cases from whatever sequences they have; the output has the input's own space and label numbers."""
    from ccsd.inference.predict import Options, predict

    options = Options(subset, labels, probabilities, flips, overlap, min_enhancing, skip_existing)
    failed = [outcome for outcome in predict(sources, out, model, options) if not _tell(outcome)]
    if failed:
        listed = "\n".join(f"  {outcome.error}" for outcome in failed)
        raise UsageError(f"{len(failed)} cases were not segmented:\n{listed}" if len(failed) > 1 else failed[0].error)


def export(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished training run.")],
    out: Annotated[Path, typer.Argument(help="File to write, ending in .pt2.")],
    subset: Annotated[str, typer.Option("--modalities", "-m", help="The combination, e.g. flair+t1ce.")],
) -> None:
    """Write one combination of a model as a program for PyTorch (torch.export) that needs nothing of this package."""
    from ccsd.inference.export import export

    written = export(model, out, subset)
    typer.echo(f"largest difference from the model on a random window: {written.difference:g}", err=True)
    typer.echo(written.path)


def _tell(outcome: "Outcome") -> bool:
    """Print what became of a case; False when it failed."""
    if outcome.error:
        return False
    if outcome.skipped:
        typer.echo(f"{outcome.case}: {outcome.path} is there, skipped")
        return True
    for warning in outcome.warnings:
        typer.echo(f"{outcome.case}: warning: {warning}", err=True)
    missing = f", missing {', '.join(outcome.missing)}" if outcome.missing else ""
    volumes = ", ".join(f"{n} {v:.1f} ml" for n, v in zip(("WT", "TC", "ET"), outcome.volumes_ml, strict=True))
    typer.echo(f"{outcome.case}: used {', '.join(outcome.used)}{missing}; {volumes}; labels {outcome.labels}")
    typer.echo(outcome.path)
    return True

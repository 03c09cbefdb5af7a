"""`ccsd evaluate`: score a model, or segmentations against references."""

from pathlib import Path
from typing import Annotated

import typer

from ccsd.cli.options import TASK, DeviceOption, LayoutOption, ModelsOption, parse_part
from ccsd.errors import UsageError

AUTO = "auto"
"""The label convention of a file is that of its layout or case."""

Subsets = Annotated[
    list[str] | None,
    typer.Option("--modalities", "-m", help="Combination such as flair+t1ce; repeatable. Default: all."),
]
Fold = Annotated[
    int | None,
    typer.Option(min=0, show_default="that of the models", help="Fold whose cases are scored, if --data has folds."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, show_default="available cores", help="Number of processes that write and score label maps."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Evaluation setting to change, e.g. evaluation.overlap=0.25."),
]


def evaluate(
    out: Annotated[Path, typer.Option(help="Folder for metrics.tsv, evaluation.json and predictions.")],
    models: ModelsOption = [],  # noqa: B006 - typer copies it
    data: Annotated[Path | None, typer.Option(help="Converted data set; its test cases are scored.")] = None,
    subsets: Subsets = None,
    pred: Annotated[Path | None, typer.Option(help="Folder of segmentations to score, instead of a model.")] = None,
    ref: Annotated[Path | None, typer.Option(help="Folder of reference segmentations.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task that defines the scoring: a name or a YAML file. Default: the model's, or brats-gli-pre."
        ),
    ] = None,
    layout: LayoutOption = None,
    pred_labels: Annotated[
        str, typer.Option(help="Label convention of --pred: auto, or a convention of the task.")
    ] = AUTO,
    ref_labels: Annotated[
        str, typer.Option(help="Label convention of --ref: auto, or a convention of the task.")
    ] = AUTO,
    ignore_affine: Annotated[
        bool,
        typer.Option("--ignore-affine", help="Compare voxel by voxel even if the headers give different positions."),
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out references without a prediction, and report how many.")
    ] = False,
    part: Annotated[
        str, typer.Option(help="I/N: score part I of N of the test cases; the last one to finish writes the table.")
    ] = "",
    fold: Fold = None,
    workers: Workers = None,
    overrides: Overrides = None,
    device: DeviceOption = None,
) -> None:
    """Score a model on the test cases (--model, --data), or segmentations against references (--pred, --ref).

    An interrupted evaluation of a model is resumed; a finished one is not repeated. Its parts may run on several
    machines at the same time, with the same --out.
    """
    from preprocess.parallel import given_cores
    from preprocess.task import read_task

    workers = workers or given_cores()
    if models and data and not pred and not ref:
        _reject_options_of_files(layout, pred_labels, ref_labels, ignore_affine=ignore_affine, partial=partial)
        from ccsd.evaluation.run import evaluate_model

        rules = read_task(task) if task else None
        wanted = subsets or (), overrides or ()
        scores = evaluate_model(models, data, out, *wanted, rules, device, workers, parse_part(part), fold)
    elif pred and ref and not models and not data:
        from ccsd.config import Evaluation
        from ccsd.config.load import evaluation_settings
        from ccsd.evaluation.folders import evaluate_folders

        _reject_options_of_a_model(subsets, part, fold)
        chosen = read_task(task or TASK)
        settings = evaluation_settings(Evaluation(), overrides or (), chosen)
        scores = evaluate_folders(
            pred,
            ref,
            out,
            chosen,
            settings,
            layout=layout,
            pred_labels=pred_labels,
            ref_labels=ref_labels,
            ignore_affine=ignore_affine,
            partial=partial,
            workers=workers,
        )
    else:
        raise UsageError("give either --model and --data, to score a model, or --pred and --ref, to score files")
    if scores is not None:
        _show(scores)


def _reject_options_of_files(
    layout: str | None, pred_labels: str, ref_labels: str, *, ignore_affine: bool, partial: bool
) -> None:
    given = {
        "--layout": layout is not None,
        "--pred-labels": pred_labels != AUTO,
        "--ref-labels": ref_labels != AUTO,
        "--ignore-affine": ignore_affine,
        "--partial": partial,
    }
    if names := [name for name, is_given in given.items() if is_given]:
        raise UsageError(f"{names[0]} is for the files of --pred and --ref; it does not apply to a converted data set")


def _reject_options_of_a_model(subsets: list[str] | None, part: str, fold: int | None) -> None:
    if subsets:
        raise UsageError("-m selects the input of a model; it does not apply to --pred and --ref")
    if part:
        raise UsageError("--part divides the test cases of a model; it does not apply to --pred and --ref")
    if fold is not None:
        raise UsageError("--fold selects test cases of --data; it does not apply to --pred and --ref")


def _show(scores: Path) -> None:
    from ccsd.evaluation.tables import mean_dice, read_metrics

    typer.echo(f"{mean_dice(read_metrics(scores))}\n{scores}")

"""What the rules of the workflow need: option strings, and which marks are outdated.

What does not depend on a study (locks, jobs of an earlier Snakemake, wrappers of SLURM's commands) is in
`cluster.snakemake`.
"""

import json
import shlex
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from ccsd.config.schema import UNSCORED, Evaluation
from ccsd.errors import UsageError
from ccsd.new_cases import NewCases
from ccsd.runs import members, run_key
from ccsd.study import Study
from preprocess.dataset import CASES_FILE, is_settled, read_rejections
from preprocess.parallel import select_part
from preprocess.source.accounts import FILES_TABLE, read_files, summary


def phantom_options(study: Study) -> str:
    """Return the options of `ccsd phantom`."""
    values = study.config.phantom.model_dump(mode="json") if study.config.phantom is not None else {}
    return shlex.join([*(item for name, value in values.items() for item in (f"--{name}", str(value))), *_task(study)])


def phantom_task(study: Study) -> dict[str, str]:
    """Return what else phantoms depend on: the contents of a task file; nothing for the default task."""
    return {} if study.task_option is None else {"task": study.config.task.digest}


def convert_options(study: Study) -> str:
    """Return the options of `ccsd convert`."""
    settings = study.config.convert
    options = [item for check in settings.allow for item in ("--allow", check)]
    for name, value in (("--layout", settings.layout), ("--labels", settings.labels)):
        options += [name, value] if value is not None else []
    return shlex.join([*options, *_task(study)])


def _task(study: Study) -> list[str]:
    return [] if study.task_option is None else ["--task", study.task_option]


def split_options(study: Study) -> str:
    """Return the options of `ccsd split`: a published list, a draw or folds, and how many cases may be rejected."""
    split, rest = study.config.split, ["--max-rejected", str(study.config.convert.max_rejected)]
    if split.patients is not None:
        rest += ["--patients", str(split.patients)]
    drawn = ["--seed", str(split.seed), "--train", str(split.train), "--val", str(split.val)]
    if study.folds.numbers != (None,):
        drawn = ["--seed", str(split.seed), "--val", str(split.val)]
        rest += [] if split.folds is None else ["--folds", str(split.folds)]
        rest += ["--list", str(split.list)] if split.list is not None else []
    elif split.list is not None:
        drawn = ["--list", str(split.list)]
    rest += ["--allow-shared-patients"] if split.list is not None and split.allow_shared_patients else []
    return shlex.join([*drawn, *rest])


def evaluation_options(study: Study, group: str, model: str | None = None) -> str:
    """Return the options of `ccsd evaluate` for one group: its combinations, and every setting that affects scores.

    For an ensemble they include all runs but the first, which the rule itself passes.
    """
    others = models_of(study, members(model)[1:]) if model is not None else []
    subsets = [item for name in study.groups[group] for item in ("-m", name)]
    fields = [name for name in Evaluation.model_fields if name not in UNSCORED]
    values = study.config.evaluation.model_dump(mode="json")
    settings = [item for name in fields for item in ("--set", f"evaluation.{name}={json.dumps(values[name])}")]
    return shlex.join([*others, *subsets, *settings, *_task(study)])


def fold_option(run: str) -> str:
    """Return the option for the fold of a run; empty without folds."""
    fold = run_key(run).fold
    return "" if fold is None else f"--set split.fold={fold} "


def models_of(study: Study, runs: Iterable[str]) -> list[str]:
    """Return the options that name trained models."""
    return [word for run in runs for word in ("--model", str(study.folder.run(run)))]


def calibrated_models(new: NewCases) -> list[str]:
    """Return the models that are calibrated: with `evaluation.calibrate` all but those of several folds.

    Of those each case outside the test set was in some training.

    Raises
    ------
    UsageError
        If there will be no validation case.
    """
    split = new.study.config.split
    if new.study.config.evaluation.calibrate and split.val == 0 and (split.list is None or split.folds is not None):
        raise UsageError(
            "configuration: evaluation.calibrate needs validation cases, and split.val is 0; give it a share, or leave "
            "evaluation.calibrate out"
        )
    names = dict.fromkeys([*new.study.models, *(new.models if new.cases else ())])
    wanted = names if new.study.config.evaluation.calibrate else ()
    return [name for name in wanted if len({run_key(run).fold for run in members(name)}) == 1]


def calibration_options(study: Study, model: str) -> str:
    """Return the options of `ccsd calibrate` for a run or an ensemble: its runs, and how it is used."""
    scored, runs = study.config.evaluation, [str(study.folder.run(run)) for run in members(model)]
    settings = {"overlap": scored.overlap, "flips": scored.flips}
    words = [word for name, value in settings.items() for word in ("--set", f"evaluation.{name}={json.dumps(value)}")]
    return shlex.join([*runs, *words])


def prediction_options(new: NewCases, model: str) -> str:
    """Return the options of `ccsd predict` for a run or an ensemble."""
    study, settings, scored = new.study, new.settings, new.study.config.evaluation
    options = [*models_of(study, members(model)), "--labels", settings.labels, "--overlap", str(scored.overlap)]
    flags = {"flips": scored.flips, "probabilities": settings.probabilities, "cleanup": settings.cleanup}
    flags["preview"] = settings.preview
    options += [f"--{name}" for name, wanted in flags.items() if wanted]
    options += ["--layout", settings.layout] if settings.layout is not None else []
    return shlex.join([*options, *(item for check in settings.allow for item in ("--allow", check))])


def rejected_cases(study: Study) -> list[str]:
    """Return a line for each case that conversion rejected, and what to do about it; usually none."""
    rejected = read_rejections(study.folder.data)
    lines = [f"left out, rejected by the conversion: {case}: {reason}" for case, reason in rejected.items()]
    advice = "To use them, fix them or allow the check (convert.allow), and add --forcerun convert once."
    return [*lines, advice] if lines else []


def segmented_cases(new: NewCases) -> list[str]:
    """Return where the segmentations of new cases are, if there are any."""
    folders = [new.study.folder.predictions(model).absolute() for model in new.models] if new.cases else []
    return [f"The segmentations of {len(new.cases)} new cases are in {folder}" for folder in folders]


def found_files(study: Study, since: float) -> list[str]:
    """Return what a conversion after this time found: numbers of cases by sequence, and files that no case uses."""
    table = study.folder.data / FILES_TABLE
    if not table.is_file() or table.stat().st_mtime < since:
        return []
    return summary(read_files(study.folder.data), study.config.task)


def outdated_marks(study: Study) -> dict[Path, list[Path]]:
    """Return, for each folder from which cases were deleted, the files that still say they exist.

    For the data folder these are the marks of the parts with such a case, and the table of all cases: Snakemake does
    not notice missing marks alone as long as the table made from them exists.
    """
    data, found = study.folder.data, {}
    gone = [part for part in study.parts if not all(is_settled(data, case) for case in _cases_of(study, part))]
    if gone:
        found[data] = [*(study.folder.mark("convert", part) for part in gone), data / CASES_FILE]
    if study.config.phantom is not None and not all((study.source / case).exists() for case in study.cases):
        found[study.source] = [study.folder.mark("phantoms")]
    existing = {folder: [path for path in paths if path.exists()] for folder, paths in found.items()}
    return {folder: paths for folder, paths in existing.items() if paths}


def _cases_of(study: Study, part: str) -> list[str]:
    number, _, total = part.partition("-of-")
    return select_part(study.cases, (int(number), int(total)))


def plan_without(workflow: Any, paths: Collection[Path]) -> None:
    """Make Snakemake plan as if files were missing; while jobs run, it sees them again.

    Missing files are recreated only if something needs them. Snakemake can force a job, needed or not, or check for its
    files, but it has no way to mark an existing file as outdated.
    """
    from snakemake.io import _IOFile

    hidden, exists = {str(path) for path in paths}, _IOFile.exists_local

    async def exists_local(file: Any) -> bool:
        planning = workflow.iocache.active  # until the first job starts; in a dry run, to the end
        return not (planning and str(file) in hidden) and bool(await exists(file))

    _IOFile.exists_local = exists_local

"""`ccsd train`: train one model for every combination of modalities."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccsd.cli.options import DeviceOption
from ccsd.errors import UsageError

if TYPE_CHECKING:
    from ccsd.config import Config


def train(
    context: typer.Context,
    config: Annotated[Path, typer.Option(help="YAML file of the study, e.g. config/demo.yaml.")],
    data: Annotated[Path, typer.Option(help="Folder written by `ccsd convert` and `ccsd split`.")],
    run: Annotated[Path, typer.Option(help="Folder of this run; an interrupted run in it is resumed.")],
    experiment: Annotated[
        str | None, typer.Option(help="Experiment of the configuration whose settings apply.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting to change, e.g. train.steps=100.")
    ] = None,
    stop_after: Annotated[
        float | None,
        typer.Option(min=0, metavar="MINUTES", help="Save and stop (exit code 75) before this time has passed."),
    ] = None,
    job: Annotated[
        list[str] | None,
        typer.Option(
            "--job",
            metavar="KEY=VALUE",
            help="Run as a job on several processes, e.g. --job tasks_per_node=2, or "
            "--job cluster=slurm --job nodes=2; without it, train in this process.",
        ),
    ] = None,
    device: DeviceOption = None,
    science: Annotated[str | None, typer.Option(hidden=True, help="Digest of what the job was submitted for.")] = None,
) -> None:
    """Train one model for every combination of modalities, or resume where an earlier call stopped."""
    from ccsd.config import load_config
    from ccsd.extras import require

    require("train", "`ccsd train`")
    settings = load_config(config, overrides or (), experiment)
    if not data.is_dir():
        raise UsageError(f"{data}: no such folder; create it with `ccsd convert SRC {data}` and `ccsd split {data}`")
    from ccsd.config.science import science_digest
    from ccsd.start import start_of
    from ccsd.study import split_for
    from preprocess.dataset import content_hash

    start_of(settings, run)  # rejects one that does not fit, before a job is submitted

    split = split_for(data, str(config), settings.task, settings.split.fold)
    current = science_digest(settings, split.hash)
    if job:
        _try_plugins(settings)
        content = content_hash(data, (*split.train, *split.val))
        options = [*_options(context, without={"job", "science", "config"}), "--science", current]
        sys.exit(_run_as_job(job, options, config, run, science_digest(settings, split.hash, content)))
    if science not in (None, current):
        start = f", {settings.train.init}" if settings.train.init else ""
        raise UsageError(f"{data}{start} or {config} changed after this job was submitted; submit it again")
    from ccsd.training.distributed import end_at_once, rank_environment
    from ccsd.training.loop import train as run_training

    code = run_training(settings, data, run, experiment, stop_after, device=device)
    if rank_environment(os.environ).world > 1:
        end_at_once(code)
    sys.exit(code)


def _try_plugins(settings: "Config") -> None:
    """Build plugins once before a job that needs them is submitted."""
    from ccsd.config.load import plugins_of

    if plugins_of(settings):
        from ccsd.distillation.own import build_objective

        build_objective(settings)


def _run_as_job(job: list[str], options: list[str], config: Path, run: Path, science: str) -> int:
    """Run this command, without `--job`, on the processes that the job describes; return its exit code.

    The digest changes the command if the configuration, the split or the contents of its cases change, so that an
    earlier job for the same folder is not taken for this one. The command reads a copy of the configuration with the
    digest in its name: a change that is rejected because that job is alive does not reach the job when it is requeued.
    """
    from ccsd.study import JOB, RECORD_FILE, WEIGHTS
    from cluster.launch import check_folder
    from cluster.launch import run as run_job
    from cluster.settings import JobSettings
    from preprocess.files import write_text

    settings = JobSettings.from_options(job)
    folder = run / JOB
    check_folder(folder.absolute(), settings)
    own = folder / f"config-{science}.yaml"
    write_text(own, config.read_text(encoding="utf-8"))
    command = [
        *_tried(settings.interpreter),
        "-m",
        "ccsd",
        "train",
        "--config",
        str(own),
        *options,
    ]
    return run_job(command, folder, settings, name=run.name, results=[run / WEIGHTS, run / RECORD_FILE])


def _tried(interpreter: list[str]) -> list[str]:
    """Return the command that starts Python in a job; if it is not this interpreter, it is tried first.

    Raises
    ------
    UsageError
        If it does not start, or has another version of this program.
    """
    from ccsd import __version__

    if interpreter == [sys.executable]:
        return interpreter
    words = [*interpreter, "-c", "import ccsd; print(ccsd.__version__)"]
    result = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    named = f"--job python={shlex.join(interpreter)}"
    if result.returncode:
        raise UsageError(f"{named}: cannot start ccsd: {result.stderr.strip()[-1000:] or 'no message'}; try it by hand")
    if (version := result.stdout.strip().rpartition("\n")[2]) != __version__:
        raise UsageError(
            f"{named}: has ccsd {version}, but this is {__version__}; build the image from this checkout, or start "
            "from the checkout that it was built from"
        )
    return interpreter


def _options(context: typer.Context, without: set[str]) -> list[str]:
    """Return the options that this command was called with, always in the same order."""
    words: list[str] = []
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if option.name not in without and value is not None:
            values = value if isinstance(value, list | tuple) else [value]
            words += [word for item in values for word in (option.opts[0], str(item))]
    return words

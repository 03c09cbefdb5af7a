"""The command line: `ccsd STAGE`. Each rule of the workflow calls exactly one of these commands.

Commands import what they need when they run, so that `ccsd --help` responds at once.
"""

import os
import sys
import tempfile
from io import TextIOWrapper
from typing import Annotated

import typer

from ccsd import __version__
from ccsd.cli import (
    adopt,
    audit,
    calibrate,
    check_plugin,
    convert,
    doctor,
    evaluate,
    models,
    phantom,
    predict,
    report,
    split,
    train,
)
from ccsd.errors import ending

LONGEST_TMPDIR = 60
"""A socket path may have 107 bytes; multiprocessing adds about forty."""

app = typer.Typer(
    name="ccsd",
    help="Brain-tumour segmentation from any set of MRI sequences.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    phantom.phantom, audit.audit, convert.convert, convert.restore, split.split, train.train, evaluate.evaluate,
    adopt.adopt, calibrate.calibrate, report.report, predict.predict, predict.export, models.pack, models.models,
    doctor.doctor, check_plugin.check_plugin,
):  # fmt: skip
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ccsd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Brain-tumour segmentation from any set of MRI sequences."""


def main() -> None:
    """Run the command line; an error that the user can fix gives one message and exit code 2, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    _shorten_temporary_folder()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        known = ending(error)
        if known is None or os.environ.get("CCSD_DEBUG"):
            raise
        code, text = known
        typer.echo(f"error: {text}", err=True)
        sys.exit(code)


def _shorten_temporary_folder() -> None:
    """Use another temporary folder if the path is too long for sockets of worker processes, as per-job ones may be."""
    short = "/tmp"  # noqa: S108 - what is made in it has a name of its own and belongs to this user
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TMPDIR and os.access(short, os.W_OK):
        tempfile.tempdir = short

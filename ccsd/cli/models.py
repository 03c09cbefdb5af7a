"""`ccsd pack`: trained models as one file, and `ccsd models`: the models available by name."""

from pathlib import Path
from typing import Annotated

import typer


def pack(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Folder of a finished run; several become one model, their mean."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.ccsd", help="File to write.")],
    evaluations: Annotated[
        list[Path] | None,
        typer.Option("--evaluation", help="Folder with its scores; repeatable. Default: those in its study."),
    ] = None,
    notes: Annotated[
        list[str] | None,
        typer.Option("--note", help="Line for the card, such as licence or citation; repeatable."),
    ] = None,
) -> None:
    """Write a trained model, or several as one, into a single file for --model, with a card and checksums."""
    from ccsd.packed.pack import pack as write
    from ccsd.records import short_hash

    packed = write(runs, out, evaluations or (), notes or ())
    for note in packed.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"model {short_hash(packed.manifest.model_hash)}, sha256={packed.sha256}")
    typer.echo(packed.path)


def models(
    model: Annotated[
        str | None, typer.Argument(metavar="NAME|FILE", help="Print the card of this one.", show_default="list all")
    ] = None,
) -> None:
    """List the packed models in the folders of CCSD_MODELS and those that come with ccsd, or print a model's card."""
    from ccsd.errors import UsageError
    from ccsd.packed import shelf

    if model is not None:
        typer.echo(shelf.card_of(model), nl=False)
        return
    found = list(shelf.models())
    for listed in found:
        typer.echo(shelf.as_text(listed))
    if bad := [listed for listed in found if listed.problem]:
        names = ", ".join(listed.name for listed in bad)
        raise UsageError(f"{len(bad)} of {len(found)} cannot be used: {names}; the reasons are listed above")

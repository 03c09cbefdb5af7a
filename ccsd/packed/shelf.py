"""`ccsd models`: list the packed models that have a name, and show the card of one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ccsd.errors import UsageError
from ccsd.packed import archive
from ccsd.packed.find import FORMS, located, named_files
from ccsd.packed.frame import printable
from ccsd.records import short_hash


@dataclass(frozen=True)
class Listed:
    """A packed model by its name."""

    name: str
    path: Path
    manifest: archive.Manifest | None = None
    """None for a damaged file."""
    problem: str = ""


def models() -> Iterator[Listed]:
    """Yield the packed models in the folders of `CCSD_MODELS` and those included in the program, fully checked."""
    for name, path in named_files():
        try:
            packed = archive.read(path)
            packed.check()
        except UsageError as error:
            yield Listed(name, path, problem=str(error))
        else:
            yield Listed(name, path, packed.manifest)


def as_text(listed: Listed) -> str:
    """Return the description of a model: three lines."""
    if (held := listed.manifest) is None:
        return printable(f"{listed.name}\n    {listed.problem}")
    scored = ", ".join(f"{region} {dice:.3f}" for region, dice in held.dice.items())
    size = listed.path.stat().st_size
    shown = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"  # noqa: PLR2004 - 0.1 MB
    several = f"{len(held.models)} models" if len(held.models) > 1 else "1 model"
    return printable(
        f"{listed.name}    task {held.task}, sequences {', '.join(held.sequences)}, {several}, {shown}\n"
        f"    {f'mean Dice over its combinations: {scored}' if scored else 'not evaluated'}; "
        f"model {short_hash(held.model_hash)}\n"
        f"    {listed.path}"
    )


def card_of(model: str) -> str:
    """Return the card of a packed model, without characters that could control a terminal.

    Raises
    ------
    UsageError
        If there is no such model or it is damaged.
    """
    path = located(model)
    if path.is_dir() or not path.exists():
        raise UsageError(f"{model}: not a packed model with a card; pack a run with `ccsd pack`, or {FORMS}")
    return printable(archive.read(path, model).card)
